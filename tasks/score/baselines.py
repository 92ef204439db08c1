"""Baselines without a language model: majority answer, question only, image and question, nearest answer copied.

Scores of a model are shown beside these, and the audit uses them to show what a dataset gives away. Each function
answers the test cases in their order and learns from training cases only.
"""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tasks.records import Case, Kind, Neighbour
from tasks.text.meaning import meaning
from tasks.text.normalise import HAN, normalise

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

ANSWERS = 1000
"""Largest number of classes for each kind: the most common answers, as in VQA (Antol et al. 2015, arXiv 1505.00468)."""
QUESTIONS = 20_000
"""Largest number of training questions for each kind; a random sample of this size is used where there are more."""
WORDS = 20_000
"""Largest number of words and word pairs in the TF-IDF vocabulary, the most frequent ones."""


def majority(train: list[Case], test: list[Case]) -> list[str]:
    """Answer with the most common training answer of the same kind, or of the other kind where there is none.

    Answers are counted in normalised form and returned in their most common spelling. Ties go to the first in the
    alphabet. Without any training case the answer is "".
    """
    answers = {kind: _most_common(_of_kind(train, kind) or train) for kind in {case.kind for case in test}}
    return [answers[case.kind] for case in test]


def question_only(train: list[Case], test: list[Case], seed: int) -> list[str]:
    """Answer from the question's words alone: for each kind a linear classifier over TF-IDF of words and word pairs.

    The classes are normalised answers, returned in their most common spelling. A kind with nothing to learn (no
    training case, only blank questions, or a single answer) gets the answer of `majority`. `seed` sets the sample of
    questions and the solver's order, so the same seed gives the same answers. Running time is bounded: at most ANSWERS
    classes and QUESTIONS training questions are used.
    """
    return _classify(train, test, seed, _words)


def image_and_question(
    train: list[Case], test: list[Case], images: "Mapping[str, np.ndarray[Any, Any]]", seed: int
) -> list[str]:
    """The classifier of `question_only` that sees the image too: what a language model must add to.

    Args:
        images: each image's features, `(d,)`. They are standardised, and scaled to the length of the question's row.
    """
    return _classify(train, test, seed, partial(_words_and_image, images))


def _classify(train: list[Case], test: list[Case], seed: int, columns: Callable[[], Any]) -> list[str]:
    answers = majority(train, test)
    for kind in sorted({case.kind for case in test}):
        model = _classifier(_of_kind(train, kind), seed, columns())
        places = [place for place, case in enumerate(test) if case.kind == kind]
        if model is not None:
            predicted = model.predict([test[place] for place in places])
            for place, answer in zip(places, predicted, strict=True):
                answers[place] = str(answer)
    return answers


def _of_kind(cases: list[Case], kind: Kind) -> list[Case]:
    return [case for case in cases if case.kind == kind]


def _most_common(cases: list[Case]) -> str:
    counts = Counter(meaning(case.answer) for case in cases)
    best = min(counts, key=lambda answer: (-counts[answer], answer), default="")
    return _spellings(cases).get(best, "")


def _spellings(cases: list[Case]) -> dict[str, str]:
    """The most common spelling of each answer."""
    counts = Counter(case.answer for case in cases)
    spellings: dict[str, str] = {}
    for spelling in sorted(counts, key=lambda spelling: (-counts[spelling], spelling)):
        spellings.setdefault(meaning(spelling), spelling)
    return spellings


def _words() -> Any:
    """TF-IDF of a case's question."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(preprocessor=_spaced_question, token_pattern=r"\S+", ngram_range=(1, 2), max_features=WORDS)


def _words_and_image(images: "Mapping[str, np.ndarray[Any, Any]]") -> Any:
    """TF-IDF of a case's question, and its image's features."""
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

    seen = FunctionTransformer(lambda cases: [images[case.image_id] for case in cases])
    return make_union(_words(), make_pipeline(seen, StandardScaler(), Normalizer()))


def _classifier(cases: list[Case], seed: int, columns: Any) -> "Pipeline | None":
    """Fit a classifier from cases to spellings of answers; None where there is nothing to learn.

    It is a linear support vector machine: as accurate as the other linear models of scikit-learn, and several times
    faster than logistic regression where most open answers are classes of their own.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    spellings = _spellings(cases)
    counts = Counter(meaning(case.answer) for case in cases)
    common = set(sorted(counts, key=lambda answer: (-counts[answer], answer))[:ANSWERS])
    cases = [case for case in cases if meaning(case.answer) in common]
    if len(cases) > QUESTIONS:
        cases = random.Random(seed).sample(cases, QUESTIONS)
    answers = [spellings[meaning(case.answer)] for case in cases]
    # NumPy drops zero characters at the end of a text.
    if len({answer.rstrip("\0") for answer in answers}) < 2 or not any(normalise(case.question) for case in cases):
        return None
    model = make_pipeline(columns, LinearSVC(random_state=seed))
    with warnings.catch_warnings():
        # Most open answers are unique. scikit-learn then warns that this looks like a regression problem.
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        return model.fit(cases, answers)


def _spaced_question(case: Case) -> str:
    """The normalised question, with spaces around each Chinese character."""
    return HAN.sub(r" \g<0> ", normalise(case.question))


def copy_nearest(train: list[Case], test: list[Case], neighbours: Iterable[Neighbour]) -> list[str]:
    """Answer with the answer of the nearest training case; "" where no neighbour was found.

    Raises KeyError where a nearest neighbour is not among the training cases.
    """
    answers = {case.id: case.answer for case in train}
    nearest = {neighbour.case_id: neighbour.neighbour_id for neighbour in neighbours if neighbour.rank == 0}
    return [answers[nearest[case.id]] if case.id in nearest else "" for case in test]
