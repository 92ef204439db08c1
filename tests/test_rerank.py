"""Re-ranking: the scores by hand, weights that are learned from what helps, and none from what was held out."""

import numpy as np
import pytest

from tasks.records import Case, Neighbour
from tasks.retrieve.hospital import make_scorer
from tasks.retrieve.rerank import AGREEMENT, Scorer, Side, evidence, fixed_scorer, learn_scorer, rerank_all

EAST, NORTH = np.float32([1, 0]), np.float32([0, 1])


def case(name: str, modality: str | None = None, organ: str | None = None, answer: str = "a") -> Case:
    return Case(name, f"image-{name}", "q", answer, "open", "train", "d", "en", modality, organ)


def test_scores_by_hand() -> None:
    query = Side([case("q", "CT", "lung")], EAST[None], NORTH[None])
    library = Side(
        [case("x", "ct ", "Lung"), case("y", "MRI", None), case("z")],
        np.stack([EAST, NORTH, EAST]),
        np.stack([EAST, NORTH, (EAST + NORTH) / np.float32(2**0.5)]),
    )
    rows = evidence(query, 0, library)
    np.testing.assert_allclose(rows, [[1, 0, 1, 1], [0, 1, -1, 0], [1, 0.5**0.5, 0, 0]], atol=1e-6)
    found = [Neighbour("q", n, name, 0.9 - n / 10) for n, name in enumerate("xyz")]
    ranked = Scorer((0.5, 0.5, 0.0, 0.0)).rerank(found, query, 0, library)
    assert [(each.neighbour_id, each.rank) for each in ranked] == [("z", 0), ("x", 1), ("y", 2)]
    assert {each.neighbour_id: each.similarity for each in ranked} == {e.neighbour_id: e.similarity for e in found}
    ranked = fixed_scorer(0.5).rerank(found, query, 0, library)
    assert [each.neighbour_id for each in ranked] == ["x", "z", "y"]
    assert fixed_scorer(0.3).weights == (0.3, 0.7, AGREEMENT, AGREEMENT)


def test_unknown_modality_and_organ_leave_the_similarities_to_decide() -> None:
    unknown = Side([case("q")], EAST[None], NORTH[None])
    library = Side([case("x", "ct", "lung"), case("y", "mri", "brain")], np.stack([EAST, EAST]), np.stack([NORTH] * 2))
    found = [Neighbour("q", 0, "x", 0.5), Neighbour("q", 1, "y", 0.5)]
    assert fixed_scorer(0.5).rerank(found, unknown, 0, library) == found


def organs(count: int) -> tuple[Side, list[list[Neighbour]]]:
    """Cases whose answer is their organ; the modality and both similarities tell nothing."""
    draw = np.random.default_rng(0)
    names = ("lung", "brain", "liver")
    cases = [case(str(n), str(draw.integers(3)), names[n % 3], names[n % 3]) for n in range(count)]
    rows = [draw.normal(size=(count, 4)).astype(np.float32) for _ in range(2)]
    side = Side(cases, *(each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows))
    others = [[other for other in range(count) if other != n][:20] for n in range(count)]
    return side, [
        [Neighbour(str(n), rank, str(other), 0.5) for rank, other in enumerate(each)] for n, each in enumerate(others)
    ]


def test_what_helps_is_learned() -> None:
    side, found = organs(60)
    scorer = make_scorer("learned", found, side, side, 0.5, set())
    assert scorer.weights[3] > 5 * max(abs(weight) for weight in scorer.weights[:3])
    ranked = rerank_all(found, side, side, scorer, 5)
    assert all(len(each) == 5 for each in ranked)
    assert all(
        side.cases[int(each.neighbour_id)].answer == side.cases[n].answer
        for n, own in enumerate(ranked)
        for each in own
    )
    assert scorer == make_scorer("learned", found, side, side, 0.5, set())


def test_nothing_is_learned_from_cases_left_out() -> None:
    side, found = organs(60)
    left_out = {str(n) for n in range(40)}
    own = make_scorer("learned", found, side, side, 0.5, left_out)
    changed = [[] if str(n) in left_out else each for n, each in enumerate(found)]
    assert make_scorer("learned", changed, side, side, 0.5, set()) == own
    assert own != make_scorer("learned", found, side, side, 0.5, set())


@pytest.mark.parametrize("right", [True, False])
def test_where_nothing_tells_right_from_wrong_the_weights_are_fixed(right: bool) -> None:
    rows = np.ones((4, 4), np.float32)
    assert learn_scorer([(rows, [right] * 4)], 0.4) == fixed_scorer(0.4)
    assert learn_scorer([], 0.4) == fixed_scorer(0.4)
