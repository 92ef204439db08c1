"""One hospital's training data for the gated fusion: training cases without the held-out set, and their order."""

from collections.abc import Sequence

import numpy as np

from tasks.cases.holdout import split_holdout
from tasks.records import Case
from tasks.retrieve.fusion import Fused, Lessons
from tasks.retrieve.hospital_data import HospitalData
from tasks.retrieve.similarity import hash_words
from tasks.store import derived_seed
from tasks.text.normalise import normalise


def fusion_lessons(data: HospitalData, share: float, seed: int) -> tuple[list[Case], Lessons]:
    """The training cases without the held-out set (`split_holdout`), and the fusion's inputs for them."""
    chosen, _ = split_holdout(data.cases, share, seed)
    encoder = Fused(data.fit(0.5), {})
    images, texts = encoder.fused_parts(*data.inputs.of(chosen))
    answers = [normalise(case.answer) for case in chosen]
    distinct, pictures = sorted(set(answers)), sorted({case.image_id for case in chosen})
    places = {answer: place for place, answer in enumerate(distinct)}
    image_places = {image: place for place, image in enumerate(pictures)}
    answer_rows = data.inputs.texts(distinct)
    rows = answer_rows if isinstance(answer_rows, np.ndarray) else hash_words(distinct)
    return chosen, Lessons(
        images,
        texts,
        rows,
        [places[answer] for answer in answers],
        [image_places[case.image_id] for case in chosen],
    )


def epoch_orders(cases: Sequence[Case], epochs: int, seed: int, round_number: int) -> list[list[int]]:
    """An order of the cases for each epoch, derived only from the seed, the round and the case ids.

    So hospitals with the same cases send the same update, whatever their names.
    """
    return [
        sorted(range(len(cases)), key=lambda place: derived_seed(seed, round_number, epoch, cases[place].id))
        for epoch in range(epochs)
    ]
