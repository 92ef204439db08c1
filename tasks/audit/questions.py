"""Test questions seen in training: repeated on the same image, restated there, or repeated on any image."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.records import Case
from tasks.text.normalise import normalise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

RESTATED = {"closed": 0.25, "open": 0.1}
"""Least cosine of two questions of which one restates the other, if both share the answer and the image.

A shared open answer is already strong evidence, a shared yes or no is not. docs/audit.md says how these were chosen.
"""


@dataclass(frozen=True)
class Seen:
    """Test case ids, each with the training case that reveals its answer."""

    same: dict[str, str]
    """The same question with the same answer on the same image, or on a copy of it."""
    restated: dict[str, str]
    """Another wording, with the same answer on the same image or a copy: the most similar training case."""
    repeated: dict[str, str]
    """The same question on any image, whatever the answer."""


def questions_seen(train: Sequence[Case], test: Sequence[Case], copy_class: Mapping[str, str]) -> Seen:
    """Find the test cases whose question was seen in training.

    Questions and answers are compared normalised. The similarity of wordings is the cosine of TF-IDF over character
    n-grams of words (3 to 5), which is robust to inflection and to templates such as "Is/Are there".

    Args:
        train: training cases.
        test: test cases.
        copy_class: class of each image id: copies of one image share a class.
    """
    by_question = {normalise(case.question): case.id for case in reversed(train)}
    repeated = {case.id: by_question[key] for case in test if (key := normalise(case.question)) in by_question}
    answered: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, case in enumerate(train):
        answered[copy_class[case.image_id], normalise(case.answer)].append(place)
    rows = question_rows([*train, *test])
    same, restated = {}, {}
    for place, case in enumerate(test):
        others = answered.get((copy_class[case.image_id], normalise(case.answer)), [])
        equal = [other for other in others if normalise(train[other].question) == normalise(case.question)]
        if equal:
            same[case.id] = train[equal[0]].id
        rest = [other for other in others if other not in equal]
        if not rest:
            continue
        cosines: NDArray[np.float64] = (rows[rest] @ rows[len(train) + place].T).toarray()[:, 0]
        if cosines.max() >= RESTATED[case.kind]:
            restated[case.id] = train[rest[int(cosines.argmax())]].id
    return Seen(same, restated, repeated)


def question_rows(cases: Sequence[Case]) -> "csr_matrix":
    """TF-IDF unit rows of the questions; a question that normalises to nothing has a row of zeros."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(preprocessor=normalise, analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    try:
        return vectorizer.fit_transform([case.question for case in cases]).tocsr()
    except ValueError:  # no question holds a character
        return csr_matrix((len(cases), 1))
