"""The answer of the most similar case: what retrieval alone would say, without any model."""

from collections.abc import Iterable

from tasks.records import Case, Neighbour


def copy_nearest(train: list[Case], test: list[Case], neighbours: Iterable[Neighbour]) -> list[str]:
    """The answer of each case's nearest training case; "" where no neighbour was found.

    Raises KeyError where a nearest neighbour is not among the training cases.
    """
    answers = {case.id: case.answer for case in train}
    nearest = {neighbour.case_id: neighbour.neighbour_id for neighbour in neighbours if neighbour.rank == 0}
    return [answers[nearest[case.id]] if case.id in nearest else "" for case in test]
