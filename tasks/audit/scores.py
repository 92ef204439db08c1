"""Scores of baselines without a model, which show how much a dataset gives away."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.random_projection import GaussianRandomProjection

from tasks.audit.questions import question_rows
from tasks.audit.search import searcher
from tasks.records import Case
from tasks.score.baselines import question_only
from tasks.text.meaning import meaning

Vectors = NDArray[np.float32]

WIDTH = 192
"""Dimensions of the random projection of a question's n-grams: cosines are off by about 0.07."""
DEFINITIONS = {
    "copy_nearest": "the answer of the training case whose image and question are the most similar, in equal parts",
    "question_only": "a linear classifier on the question's words alone, over all training cases",
    "correct": "equal to the reference after normalisation",
}


class ShareRight(TypedDict):
    """The share of the questions of one kind that are answered right."""

    n: int
    correct: float | None
    """None where there is no question."""


def score_without_model(
    train: Sequence[Case], test: Sequence[Case], images: Mapping[str, Vectors], copy_class: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """Score two baselines: the nearest case's answer (with and without the same image), and the question alone.

    Args:
        train: training cases.
        test: test cases.
        images: the coarse shape of each image, a unit row `(d,)`, all of the same length; none for a blank image.
        copy_class: class of each image id: copies of one image share a class and count as the same image.
        seed: of the random projection and of the classifier.

    Returns the share of right answers by kind, each with its denominator, as `DEFINITIONS` says; empty without training
    or test cases.
    """
    if not train or not test:
        return {}
    questions = _projected([*train, *test], seed)
    blank = np.zeros(len(next(iter(images.values()), ())), np.float32)
    pictures = np.stack([images.get(case.image_id, blank) for case in [*train, *test]])
    both = np.ascontiguousarray(np.hstack([questions, pictures]), np.float32)
    most = max(Counter(copy_class[case.image_id] for case in train).values())
    found = searcher(both[: len(train)])(both[len(train) :], min(most + 1, len(train)))[1]
    other = [
        [place for place in row if place >= 0 and copy_class[train[place].image_id] != copy_class[case.image_id]]
        for row, case in zip(found.tolist(), test, strict=True)
    ]
    return {
        "copy_nearest": {
            "with_same_image": _shares(test, [train[row[0]].answer for row in found.tolist()]),
            "without_same_image": _shares(test, [train[row[0]].answer if row else "" for row in other]),
        },
        "question_only": _shares(test, question_only(list(train), list(test), seed)),
        "definitions": DEFINITIONS,
    }


def _projected(cases: Sequence[Case], seed: int) -> Vectors:
    rows = question_rows(cases)
    if rows.shape[1] > WIDTH:
        rows = GaussianRandomProjection(WIDTH, random_state=seed).fit_transform(rows)
    else:
        rows = rows.toarray()
    dense = np.asarray(rows, np.float32)
    return np.ascontiguousarray(dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-6))


def _shares(test: Sequence[Case], answers: Sequence[str]) -> dict[str, ShareRight]:
    right: dict[str, list[bool]] = {"closed": [], "open": []}
    for case, answer in zip(test, answers, strict=True):
        right[case.kind].append(meaning(case.answer) == meaning(answer) != "")
    return {
        kind: {"n": len(each), "correct": round(sum(each) / len(each), 4) if each else None}
        for kind, each in right.items()
    }
