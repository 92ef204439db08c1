"""A hospital's cases opened for retrieval, and its library's encoder and scorer as they were written."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.cases.holdout import split_holdout
from tasks.records import Case, Neighbour, read_table
from tasks.retrieve.encoded import ENCODED, Encoded, Inputs, Pooled, load_encoded
from tasks.retrieve.fusion import FUSION, Fused, Lessons
from tasks.retrieve.rerank import Scorer, Side, fixed_scorer, learn_scorer, lessons
from tasks.retrieve.similarity import Encoder, encoder_from_json, fit_encoder, hash_words
from tasks.store import ROOT, derived_seed
from tasks.text.normalise import normalise

ENCODER, SCORER = "encoder.json", "scorer.json"


@dataclass(frozen=True)
class Holding:
    """A hospital's cases, and what they are compared by."""

    cases: list[Case]
    inputs: Inputs

    @property
    def training(self) -> list[Case]:
        """Those that make the library."""
        return [case for case in self.cases if case.split == "train"]

    def fit(self, image_weight: float) -> Encoder:
        """The encoder whose statistics are of the training cases."""
        return fit_encoder(*self.inputs.of(self.training), image_weight)

    def side(self, encoder: Encoder | Fused, cases: Sequence[Case]) -> Side:
        """Some cases with their rows of images and of questions."""
        return Side(cases, *encoder.parts(*self.inputs.of(cases)))


def open_holding(cases: Path, features: Path, encoded: Path | None) -> Holding:
    """Read what the stages `cases`, `features` and, where there is one, `encoded` left in their folders."""
    from tasks.engine.vision import FEATURES, load_features

    rows = load_encoded(encoded / ENCODED) if encoded else Encoded()
    return Holding(read_table(cases / "cases.parquet", Case), Inputs(load_features(features / FEATURES), rows))


def encoded_of(library: Path) -> str | None:
    """The folder, relative to the artifacts, with the rows that a library was built from; None where features are."""
    path: str | None = json.loads((library / "inputs.json").read_text(encoding="utf-8"))["encoded"]
    return path


def open_inputs(library: Path, features: Pooled) -> Inputs:
    """What the cases of a library are compared by; `features` are the base's."""
    encoded = encoded_of(library)
    return Inputs(features, load_encoded(ROOT / encoded / ENCODED) if encoded else Encoded())


def fusion_lessons(holding: Holding, share: float, seed: int) -> tuple[list[Case], Lessons]:
    """The training cases without those held out (as `split_holdout` does), and what the fusion learns from them."""
    chosen, _ = split_holdout(holding.cases, share, seed)
    encoder = Fused(holding.fit(0.5), {})
    images, texts = encoder.fused_parts(*holding.inputs.of(chosen))
    answers = [normalise(case.answer) for case in chosen]
    distinct, pictures = sorted(set(answers)), sorted({case.image_id for case in chosen})
    places = {answer: place for place, answer in enumerate(distinct)}
    image_places = {image: place for place, image in enumerate(pictures)}
    answer_rows = holding.inputs.texts(distinct)
    rows = answer_rows if isinstance(answer_rows, np.ndarray) else hash_words(distinct)
    return chosen, Lessons(
        images,
        texts,
        rows,
        [places[answer] for answer in answers],
        [image_places[case.image_id] for case in chosen],
    )


def epoch_orders(cases: Sequence[Case], epochs: int, seed: int, round_number: int) -> list[list[int]]:
    """An order of the cases for each epoch, which follows from the seed, the round and the cases' ids alone.

    So hospitals that hold the same cases send the same update, and no hospital's name is needed.
    """
    return [
        sorted(range(len(cases)), key=lambda place: derived_seed(seed, round_number, epoch, cases[place].id))
        for epoch in range(epochs)
    ]


def open_library_encoder(folder: Path) -> Encoder | Fused:
    """The encoder that a library was built with."""
    from safetensors.torch import load_file

    encoder = encoder_from_json(json.loads((folder / ENCODER).read_text(encoding="utf-8")))
    return Fused(encoder, load_file(folder / FUSION)) if (folder / FUSION).is_file() else encoder


def open_scorer(folder: Path) -> Scorer | None:
    """What a library's first cases are ranked anew by; None where they are not."""
    if not (folder / SCORER).is_file():
        return None
    first, second, third, fourth = json.loads((folder / SCORER).read_text(encoding="utf-8"))["weights"]
    return Scorer((first, second, third, fourth))


def make_scorer(
    kind: str,
    found: Sequence[Sequence[Neighbour]],
    asked: Side,
    library: Side,
    image_weight: float,
    left_out: Collection[str],
) -> Scorer:
    """The scorer that `retrieval.rerank` asks for; `learned` from the training cases among those asked.

    `left_out` names cases that nothing may be learned from, neither as cases asked nor as cases found.
    """
    if kind == "fixed":
        return fixed_scorer(image_weight)
    own = [place for place, case in enumerate(asked.cases) if case.split == "train" and case.id not in left_out]
    training = Side([asked.cases[place] for place in own], asked.images[own], asked.texts[own])
    answers = {case.id: normalise(case.answer) for case in library.cases}
    known = [[each for each in found[place] if each.neighbour_id not in left_out] for place in own]
    return learn_scorer(lessons(known, training, library, answers), image_weight)
