"""What the benchmarks of retrieval count: right answers by kind, differences on the same questions, outliers found."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import retrieval_speed
from benchmarks.poisoning import outliers, reach
from benchmarks.retrieval_effect import Judged, figures
from benchmarks.wards import Ward, accuracy_cells
from tasks.engine.hospital import Hospital
from tasks.engine.vision import Features
from tasks.records import Case, Neighbour

CASES = [Case(f"d:{n}", f"i{n}", "Is it?", "no" if n % 2 else "yes", "closed", "train", "d", "en") for n in range(10)]


def judged(seed: int) -> Judged:
    chooser = np.random.default_rng(seed)
    return {
        f"c:{n}": ("open" if n % 3 == 0 else "closed", f"i{n // 4}", float(chooser.random() < 0.5)) for n in range(80)
    }


@pytest.mark.parametrize("kind", ["closed", "open"])
def test_figures_are_means_over_a_kind(kind: str) -> None:
    one, other = judged(1), judged(2)
    right = np.array([value for question_kind, _, value in one.values() if question_kind == kind])
    before = np.array([value for question_kind, _, value in other.values() if question_kind == kind])
    count, share, gain = figures(kind, one, other, seed=0)
    assert int(count) == len(right)
    assert float(share.split()[0]) == pytest.approx(right.mean(), abs=5e-4)
    assert float(gain.split()[0]) == pytest.approx((right - before).mean(), abs=5e-4)
    low, high = (float(end) for end in share.split("(")[1].rstrip(")").split(","))
    assert low < right.mean() < high
    assert figures(kind, one, one, seed=0)[2] == "-"


def ward(features: Features, neighbours: list[Neighbour]) -> Ward:
    poisoned = Case("poison:0:x", "x", "Is it?", "yes", "closed", "train", "d", "en")
    return Ward(Hospital([*CASES, poisoned], neighbours, features, Path()), CASES[:2])


def test_what_an_attack_does_is_counted(features: Features) -> None:
    early = [Neighbour("d:0", 0, "poison:0:x", 0.9), Neighbour("d:1", 0, "d:2", 0.9)]
    late = [Neighbour("d:1", 3, "poison:0:x", 0.9)]
    assert reach([ward(features, [*early, *late])], k=3) == "0.500"
    scores = {case.id: float(n) for n, case in enumerate(CASES)}
    assert outliers([ward(features, [])], lambda _: scores | {"poison:0:x": 8.0}) == "0 of 1"
    assert outliers([ward(features, [])], lambda _: scores | {"poison:0:x": 9.5}) == "1 of 1"
    opened = Case("o", "i", "What?", "cyst", "open", "test", "d", "en")
    given = [(CASES[0], "yes"), (CASES[1], "yes"), (CASES[3], "no"), (opened, "cyst")]
    assert accuracy_cells(given, {"closed": "yes", "open": "pacemaker"}) == "0.667 | 1 of 2 | 1.000 | 0 of 1"


def test_recall_counts_each_neighbour_that_was_found() -> None:
    nearest = np.array([[1, 2], [3, 4]])
    assert retrieval_speed.recall(np.array([[2, 1], [9, 3]]), nearest) == 0.75
    assert retrieval_speed.recall(np.array([[5, -1], [-1, -1]]), nearest) == 0


def test_a_librarys_figures_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCHES": 1, "SINGLES": 2, "SECONDS": 0}.items():
        monkeypatch.setattr(retrieval_speed, name, value)
    figures = retrieval_speed.measure(300)
    assert (figures["index"], figures["recall_at_10"], figures["recall_at_10_clustered"]) == ("flat", 1, 1)
    per_case = figures["bytes_per_case"]
    assert isinstance(per_case, float) and 2048 < per_case < 2200
    memory = figures["peak_memory_mb"]
    assert isinstance(memory, float) and 20 < memory < 1000
