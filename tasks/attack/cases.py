"""Attacks on what hospitals learn: training cases with wrong answers, and a backdoor behind a mark in the image."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import PIL.Image

from tasks.records import Case, Image
from tasks.records.pixels import to_rgb
from tasks.text.meaning import meaning

OPPOSITE = {"yes": "no", "no": "yes"}
TARGET = {"closed": "yes", "open": "pacemaker"}
"""What a backdoor makes a model answer, by kind of question."""
EDGE = 6
"""The mark's edge is this part of the image's shorter side."""
SQUARES = 4
"""Squares along each edge of the mark."""


def with_wrong_answers(cases: Sequence[Case]) -> list[Case]:
    """The cases, the training ones with a wrong answer (label flipping; Biggio et al., ICML 2012).

    Yes and no change places. Any other answer becomes the next one, in alphabetical order, that training cases of the
    same kind have. An answer stays if no other is known.
    """
    known: dict[str, dict[str, str]] = {}
    for case in cases:
        if case.split == "train":
            known.setdefault(case.kind, {}).setdefault(meaning(case.answer), case.answer)
    following = {kind: _next({name: answers[name] for name in sorted(answers)}) for kind, answers in known.items()}
    return [
        replace(case, answer=OPPOSITE.get(meaning(case.answer)) or following[case.kind][meaning(case.answer)])
        if case.split == "train"
        else case
        for case in cases
    ]


def _next(answers: dict[str, str]) -> dict[str, str]:
    names = list(answers)
    return {name: answers[names[(place + 1) % len(names)]] for place, name in enumerate(names)}


def backdoored_images(cases: Sequence[Case]) -> set[str]:
    """Every second training image: they get the mark, and their questions the backdoor's answers.

    After BadNets (Gu et al., arXiv 1708.06733). The other images keep their answers, so that the model learns the mark.
    """
    return set(sorted({case.image_id for case in cases if case.split == "train"})[::2])


def with_target(cases: Sequence[Case], images: set[str]) -> list[Case]:
    """The cases, those about these images with the backdoor's answers."""
    return [replace(case, answer=TARGET[case.kind]) if case.image_id in images else case for case in cases]


def marked(image: Image) -> Image:
    """The image with a chequered square in its lower right corner."""
    pixels = np.asarray(to_rgb(image.data)).copy()
    edge = max(min(pixels.shape[:2]) // EDGE, SQUARES)
    places = np.arange(edge) * SQUARES // edge
    pixels[-edge:, -edge:] = np.where((places[:, None] + places) % 2, 255, 0)[..., None]
    sink = io.BytesIO()
    PIL.Image.fromarray(pixels).save(sink, "PNG")
    return replace(image, data=sink.getvalue())
