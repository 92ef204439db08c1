"""Answers without looking: the most common one, and the one that the words of the question suggest.

Whoever scores a model stands it beside these, and the audit tells by them what a dataset gives away. Each function
answers the test cases in their order, from training cases alone.
"""

import random
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.records import Case, Kind, Neighbour
from tasks.text.meaning import meaning
from tasks.text.normalise import HAN, normalise

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

ANSWERS = 1000
"""Most answers of a kind that are told apart, the most common ones: as in VQA (Antol et al. 2015, arXiv 1505.00468)."""
QUESTIONS = 20_000
"""Most training questions of a kind that are learned from; of more, this many are drawn."""
WORDS = 20_000
"""Most words and pairs of words that are weighed, the most frequent ones."""


def majority(train: list[Case], test: list[Case]) -> list[str]:
    """The most common answer among training cases of the same kind, or of the other kind where there are none.

    Answers are counted normalised and given in their most common spelling; ties go to the first in the alphabet.
    Without any training case the answer is "".
    """
    answers = {kind: _most_common(_of_kind(train, kind) or train) for kind in {case.kind for case in test}}
    return [answers[case.kind] for case in test]


def question_only(train: list[Case], test: list[Case], seed: int) -> list[str]:
    """The answer that the question's words suggest: for each kind a linear classifier over TF-IDF of words and pairs.

    Its classes are normalised answers, given in their most common spelling. Where a kind leaves nothing to tell apart
    (no training case, blank questions, a single answer) the answer is that of `majority`. `seed` draws the questions
    and orders the solver's steps: the same seed gives the same answers. The time that it takes is bounded: answers
    beyond ANSWERS are never given, and questions beyond QUESTIONS not learned from.
    """
    answers = majority(train, test)
    for kind in sorted({case.kind for case in test}):
        model = _classifier(_of_kind(train, kind), seed)
        places = [place for place, case in enumerate(test) if case.kind == kind]
        if model is not None:
            predicted = model.predict([test[place].question for place in places])
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


def _classifier(cases: list[Case], seed: int) -> "Pipeline | None":
    """Fit spellings of answers to questions; None where there is nothing to tell apart.

    A linear support vector machine: as good as its neighbours in scikit-learn, and several times faster than logistic
    regression where most open answers are classes of their own.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
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
    words = TfidfVectorizer(preprocessor=_spaced, token_pattern=r"\S+", ngram_range=(1, 2), max_features=WORDS)
    model = make_pipeline(words, LinearSVC(random_state=seed))
    with warnings.catch_warnings():
        # Open answers are mostly unique, which scikit-learn takes for a regression problem.
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        return model.fit([case.question for case in cases], answers)


def _spaced(question: str) -> str:
    """The normalised question, with Chinese characters parted by spaces."""
    return HAN.sub(r" \g<0> ", normalise(question))


def copy_nearest(train: list[Case], test: list[Case], neighbours: Iterable[Neighbour]) -> list[str]:
    """The answer of each case's nearest training case; "" where no neighbour was found.

    Raises KeyError where a nearest neighbour is not among the training cases.
    """
    answers = {case.id: case.answer for case in train}
    nearest = {neighbour.case_id: neighbour.neighbour_id for neighbour in neighbours if neighbour.rank == 0}
    return [answers[nearest[case.id]] if case.id in nearest else "" for case in test]
