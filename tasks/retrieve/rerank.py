"""Re-ranks the nearest cases by a weighted sum of four similarities, with fixed or learned weights."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression

from tasks.records import Case, Neighbour
from tasks.retrieve.rows import Rows
from tasks.text.normalise import normalise

AGREEMENT = 0.25
"""Fixed weight of the same modality, and of the same organ; the image and question weights sum to 1."""


@dataclass(frozen=True)
class CaseRows:
    """Cases with the unit rows of their images `(n, d)` and questions `(n, t)`."""

    cases: Sequence[Case]
    images: Rows
    texts: Rows


@dataclass(frozen=True)
class Scorer:
    """Weights of image similarity, question similarity, same modality and same organ."""

    weights: tuple[float, float, float, float]

    def rerank(self, found: Sequence[Neighbour], query: CaseRows, place: int, library: CaseRows) -> list[Neighbour]:
        """One query's neighbours in their new order; each keeps the similarity from the search.

        Args:
            found: the query's neighbours.
            query: the queries, including this one.
            place: index of this query.
            library: the cases found, in the order of `found`.
        """
        scores = pair_features(query, place, library) @ np.asarray(self.weights)
        order = np.argsort(-scores, kind="stable")
        return [replace(found[old], rank=rank) for rank, old in enumerate(order.tolist())]


def fixed_scorer(image_weight: float) -> Scorer:
    """A scorer with the image and question weights of the search, and `AGREEMENT` for modality and organ."""
    return Scorer((image_weight, 1 - image_weight, AGREEMENT, AGREEMENT))


def learned_scorer(
    found: Sequence[Sequence[Neighbour]],
    queries: CaseRows,
    library: CaseRows,
    image_weight: float,
    left_out: Collection[str],
) -> Scorer:
    """Learn a scorer (`learn_scorer`) from the training cases among the queries.

    Args:
        found: neighbours of each query.
        queries: cases of any split.
        library: all cases found; may hold other cases too.
        image_weight: image weight of the fixed scorer, the fallback.
        left_out: ids of cases to leave out, both as queries and as neighbours.
    """
    chosen = [place for place, case in enumerate(queries.cases) if case.split == "train" and case.id not in left_out]
    training = CaseRows([queries.cases[place] for place in chosen], queries.images[chosen], queries.texts[chosen])
    known = [[each for each in found[place] if each.neighbour_id not in left_out] for place in chosen]
    answers = {case.id: normalise(case.answer) for case in (*library.cases, *training.cases)}
    places = {case.id: place for place, case in enumerate(library.cases)}
    examples = [
        (
            pair_features(training, place, _chosen(each, library, places)),
            [answers[neighbour.neighbour_id] == answers[training.cases[place].id] for neighbour in each],
        )
        for place, each in enumerate(known)
    ]
    return learn_scorer(examples, image_weight)


def learn_scorer(examples: Sequence[tuple[Rows, Sequence[bool]]], image_weight: float) -> Scorer:
    """Fit a logistic regression that predicts whether a neighbour has the query's answer.

    Returns the fixed scorer if all neighbours have the answer, or none has.

    Args:
        examples: for each training case of a hospital, the `pair_features` `(n, 4)` of its neighbours (of other
            images), and whether each has the same answer.
        image_weight: image weight of the fixed scorer.
    """
    rows = np.concatenate([each for each, _ in examples] or [np.zeros((0, 4), np.float32)])
    right = np.concatenate([np.asarray(each, bool) for _, each in examples] or [np.zeros(0, bool)])
    if right.all() or not right.any():
        return fixed_scorer(image_weight)
    model = LogisticRegression(max_iter=1000).fit(rows, right)
    first, second, third, fourth = (float(weight) for weight in model.coef_[0])
    return Scorer((first, second, third, fourth))


def pair_features(query: CaseRows, place: int, library: CaseRows) -> Rows:
    """Features `(n, 4)` of one query and n cases: image cosine, question cosine, modality and organ agreement.

    Agreement is 1, disagreement -1, and 0 if either case does not state the value.
    """
    case = query.cases[place]
    rows = np.zeros((len(library.cases), 4), np.float32)
    rows[:, 0] = library.images @ query.images[place]
    rows[:, 1] = library.texts @ query.texts[place]
    rows[:, 2] = [_agreement(case.modality, other.modality) for other in library.cases]
    rows[:, 3] = [_agreement(case.organ, other.organ) for other in library.cases]
    return rows


def rerank_all(
    found: Sequence[Sequence[Neighbour]], query: CaseRows, library: CaseRows, scorer: Scorer, depth: int
) -> list[list[Neighbour]]:
    """Re-rank every query's neighbours, and keep the first `depth`; `library` holds all cases found."""
    places = {case.id: place for place, case in enumerate(library.cases)}
    return [
        scorer.rerank(each, query, place, _chosen(each, library, places))[:depth] for place, each in enumerate(found)
    ]


def _chosen(found: Sequence[Neighbour], library: CaseRows, places: Mapping[str, int]) -> CaseRows:
    chosen = [places[neighbour.neighbour_id] for neighbour in found]
    return CaseRows([library.cases[place] for place in chosen], library.images[chosen], library.texts[chosen])


def _agreement(one: str | None, other: str | None) -> int:
    if not one or not other:
        return 0
    return 1 if one.strip().lower() == other.strip().lower() else -1
