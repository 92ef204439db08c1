"""A hospital's files, opened for the engine: its cases, their neighbours, the features of its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.engine.base import Base
from tasks.engine.batch import Example, encode
from tasks.engine.engine import Engine
from tasks.engine.mixture import Mixture
from tasks.engine.pixels import see_again
from tasks.engine.prompt import Prompt, build_prompts
from tasks.engine.vision import FEATURES, Features, load_features
from tasks.records import Case, Neighbour, read_images, read_table
from tasks.records.federation import HospitalRefs
from tasks.records.tuning import Tuning, read_tuning
from tasks.settings import ContextSettings


@dataclass(frozen=True)
class Hospital:
    """The data of one hospital that its prompts are built from."""

    cases: list[Case]
    neighbours: list[Neighbour]
    features: Features
    """Of the frozen base, as retrieval compares them; what a model computes with is `seen_by`."""
    images: Path
    """The table of its images."""
    tuning: Tuning | None = None
    """How it uses its retrieved cases to answer; None for what the study's settings say."""

    def seen_by(self, engine: Engine) -> Features:
        """The features of its images as the adapter that is switched on sees them.

        They are the cached ones, unless the adapter changes the tower: then they are computed at each call.
        """
        if not engine.tower_learns:
            return self.features
        return see_again(engine.base, self.features, read_images(self.images))

    def prompts(self, to_answer: Sequence[Case], how: ContextSettings) -> list[Prompt]:
        """The conversations in which some of the hospital's cases are answered, each with neighbours as context."""
        return build_prompts(to_answer, self.cases, self.neighbours, answering_context(how, self.tuning))

    def examples(self, base: Base, to_answer: Sequence[Case], how: ContextSettings) -> list[Example]:
        """The conversations that train an adapter or measure its loss, tokenised for a base."""
        return encode(base, self.features, build_prompts(to_answer, self.cases, self.neighbours, how))

    @property
    def mixture(self) -> Mixture | None:
        """How retrieved answers are mixed into the model's distribution; None if they are not."""
        return mixture_of(self.tuning)


def open_hospital(refs: HospitalRefs) -> Hospital:
    """Read the output of the stages `cases`, `features` and `library`."""
    return Hospital(
        read_table(refs.cases.folder / "cases.parquet", Case),
        read_table(refs.library.folder / "neighbours.parquet", Neighbour),
        load_features(refs.features.folder / FEATURES),
        refs.cases.folder / "images.parquet",
        read_tuning(refs.tuning.folder) if refs.tuning else None,
    )


def answering_context(how: ContextSettings, tuning: Tuning | None) -> ContextSettings:
    """What prompts show where questions are answered: as tuned, or at most as many cases as the settings allow."""
    chosen: dict[str, float] = {"k": how.most} if tuning is None else {"k": tuning.k, "floor": tuning.floor}
    return how.model_copy(update=chosen)


def mixture_of(tuning: Tuning | None) -> Mixture | None:
    """The mixture that a tuning asks for; None if it mixes nothing."""
    return Mixture(tuning.weight, tuning.temperature) if tuning and tuning.weight else None
