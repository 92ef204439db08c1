"""Loads a hospital's cases, and the inputs of their comparison, from the folders of earlier stages."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.records import Case, read_table
from tasks.records.federation import LibrarySources
from tasks.retrieve.encoded import ENCODED, Encoded, Inputs, load_encoded
from tasks.retrieve.similarity import Encoder, fit_encoder


@dataclass(frozen=True)
class HospitalData:
    """A hospital's cases, and their image and question rows for comparison."""

    cases: Sequence[Case]
    inputs: Inputs

    @property
    def training(self) -> list[Case]:
        """The training cases, which make up the library."""
        return [case for case in self.cases if case.split == "train"]

    def fit(self, image_weight: float) -> Encoder:
        """An encoder fitted to the training cases."""
        return fit_encoder(*self.inputs.of(self.training), image_weight)


def open_hospital_data(hospital: LibrarySources) -> HospitalData:
    """Read the folders of the stages `cases`, `features` and, if there is one, `encoded`."""
    from tasks.engine.vision import FEATURES, load_features

    features = load_features(hospital.features.folder / FEATURES)
    encoded = load_encoded(hospital.encoded.folder / ENCODED) if hospital.encoded else Encoded()
    return HospitalData(read_table(hospital.cases.folder / "cases.parquet", Case), Inputs(features, encoded))
