"""Re-ranking: the scores by hand, weights that are learned from what helps, and none from what was held out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.cases.holdout import split_holdout
from tasks.engine.vision import FEATURES, Features
from tasks.records import Case, ImagePair, Neighbour, write_table
from tasks.records.federation import LibrarySources
from tasks.retrieve.rerank import (
    AGREEMENT,
    CaseRows,
    Scorer,
    fixed_scorer,
    learn_scorer,
    learned_scorer,
    pair_features,
    rerank_all,
)
from tasks.retrieve.step import build_hospital_library
from tasks.settings import LibrarySettings
from tasks.store import writing

EAST, NORTH = np.float32([1, 0]), np.float32([0, 1])


def case(name: str, modality: str | None = None, organ: str | None = None, answer: str = "a") -> Case:
    return Case(name, f"image-{name}", "q", answer, "open", "train", "d", "en", modality, organ)


def test_scores_by_hand() -> None:
    query = CaseRows([case("q", "CT", "lung")], EAST[None], NORTH[None])
    library = CaseRows(
        [case("x", "ct ", "Lung"), case("y", "MRI", None), case("z")],
        np.stack([EAST, NORTH, EAST]),
        np.stack([EAST, NORTH, (EAST + NORTH) / np.float32(2**0.5)]),
    )
    rows = pair_features(query, 0, library)
    np.testing.assert_allclose(rows, [[1, 0, 1, 1], [0, 1, -1, 0], [1, 0.5**0.5, 0, 0]], atol=1e-6)
    found = [Neighbour("q", n, name, 0.9 - n / 10) for n, name in enumerate("xyz")]
    ranked = Scorer((0.5, 0.5, 0.0, 0.0)).rerank(found, query, 0, library)
    assert [(each.neighbour_id, each.rank) for each in ranked] == [("z", 0), ("x", 1), ("y", 2)]
    assert {each.neighbour_id: each.similarity for each in ranked} == {e.neighbour_id: e.similarity for e in found}
    ranked = fixed_scorer(0.5).rerank(found, query, 0, library)
    assert [each.neighbour_id for each in ranked] == ["x", "z", "y"]
    assert fixed_scorer(0.3).weights == (0.3, 0.7, AGREEMENT, AGREEMENT)


def test_unknown_modality_and_organ_leave_the_similarities_to_decide() -> None:
    unknown = CaseRows([case("q")], EAST[None], NORTH[None])
    library = CaseRows(
        [case("x", "ct", "lung"), case("y", "mri", "brain")], np.stack([EAST, EAST]), np.stack([NORTH] * 2)
    )
    found = [Neighbour("q", 0, "x", 0.5), Neighbour("q", 1, "y", 0.5)]
    assert fixed_scorer(0.5).rerank(found, unknown, 0, library) == found


def organs(count: int) -> tuple[CaseRows, list[list[Neighbour]]]:
    """Cases whose answer is their organ; the modality and both similarities tell nothing."""
    draw = np.random.default_rng(0)
    names = ("lung", "brain", "liver")
    cases = [case(str(n), str(draw.integers(3)), names[n % 3], names[n % 3]) for n in range(count)]
    rows = [draw.normal(size=(count, 4)).astype(np.float32) for _ in range(2)]
    side = CaseRows(cases, *(each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows))
    others = [[other for other in range(count) if other != n][:20] for n in range(count)]
    return side, [
        [Neighbour(str(n), rank, str(other), 0.5) for rank, other in enumerate(each)] for n, each in enumerate(others)
    ]


def test_what_helps_is_learned() -> None:
    side, found = organs(60)
    scorer = learned_scorer(found, side, side, 0.5, set())
    assert scorer.weights[3] > 5 * max(abs(weight) for weight in scorer.weights[:3])
    ranked = rerank_all(found, side, side, scorer, 5)
    assert all(len(each) == 5 for each in ranked)
    assert all(
        side.cases[int(each.neighbour_id)].answer == side.cases[n].answer
        for n, reranked in enumerate(ranked)
        for each in reranked
    )
    assert scorer == learned_scorer(found, side, side, 0.5, set())


def test_nothing_is_learned_from_cases_left_out() -> None:
    """Neither from what they ask nor from what is found: the weights are those of a hospital without them."""
    side, found = organs(60)
    left_out = {str(n) for n in range(0, 40, 2)}
    scorer = learned_scorer(found, side, side, 0.5, left_out)
    kept = [[each for each in near if each.neighbour_id not in left_out] for near in found]
    without = [[] if str(n) in left_out else each for n, each in enumerate(kept)]
    assert learned_scorer(without, side, side, 0.5, set()) == scorer
    assert scorer not in (learned_scorer(each, side, side, 0.5, set()) for each in (found, kept))


def scorer_of(folder: str, cases: list[Case], share: float) -> Scorer:
    """What the stage learns, of cases with an image each."""
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(len(cases), 6)).astype(np.float32))
    starts = {case.image_id: place for place, case in enumerate(cases)}
    with writing("hospitals/north", "cases", folder) as cases_folder:
        with cases_folder.open("cases.parquet") as sink:
            write_table(sink, Case, cases)
        with cases_folder.open("copies.parquet") as sink:
            write_table(sink, ImagePair, [])
    with writing("hospitals/north", "features", folder) as seen:
        seen.write(FEATURES, Features(rows, starts, dict.fromkeys(starts, (1, 2, 2)), 2).to_bytes())
    made = build_hospital_library.fn(
        hospital=LibrarySources(name="north", cases=cases_folder.ref, features=seen.ref),
        settings=LibrarySettings(depth=5, rerank="learned", holdout=share, seed=3),
    )
    return Scorer(tuple(json.loads((made.folder / "scorer.json").read_text())["weights"]))


def test_the_stage_learns_from_training_cases_that_are_not_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other answers to the test cases and to those held out change no weight; held out are those of `split_holdout`."""
    monkeypatch.chdir(tmp_path)
    cases = [replace(each, split="test" if n >= 30 else "train") for n, each in enumerate(organs(40)[0].cases)]
    kept = {case.id for case in split_holdout(cases, 0.4, 3)[0]}
    assert len(kept) == 18
    others = [case if case.id in kept else replace(case, answer="cyst") for case in cases]
    found, changed = (scorer_of(name, rows, 0.4) for name, rows in (("0", cases), ("1", others)))
    assert found == changed
    assert scorer_of("2", cases, 0.0) != found
    assert scorer_of("3", others, 0.0) != scorer_of("4", cases, 0.0)


@pytest.mark.parametrize("right", [True, False])
def test_where_nothing_separates_right_from_wrong_the_weights_are_fixed(right: bool) -> None:
    rows = np.ones((4, 4), np.float32)
    assert learn_scorer([(rows, [right] * 4)], 0.4) == fixed_scorer(0.4)
    assert learn_scorer([], 0.4) == fixed_scorer(0.4)
