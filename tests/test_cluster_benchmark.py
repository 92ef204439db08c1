"""What the benchmark of a cluster simulates, against schedules worked out by hand."""

import pytest

from benchmarks.cluster import levels, span, spread

FOUND = {
    "source/ingest/a": {"inputs": [], "seconds": 3.0},
    "hospitals/h1/cases/b": {"inputs": ["source/ingest/a"], "seconds": 1.0},
    "hospitals/h2/cases/c": {"inputs": ["source/ingest/a"], "seconds": 2.0},
    "shared/update/d": {"inputs": ["hospitals/h1/cases/b"], "seconds": 10.0},
    "shared/update/e": {"inputs": ["hospitals/h2/cases/c"], "seconds": 20.0},
    "shared/adapter/f": {"inputs": ["shared/update/d", "shared/update/e", "gone"], "seconds": 0.5},
}


def test_a_folder_is_one_level_above_its_inputs() -> None:
    assert levels(FOUND) == [[[3.0]], [[1.0, 2.0]], [[10.0, 20.0]], [[0.5]]]


@pytest.mark.parametrize("workers, seconds", [(1, 36.5), (2, 3 + 2 + 20 + 0.5), (8, 3 + 2 + 20 + 0.5)])
def test_a_level_waits_for_the_worker_with_most_to_do(workers: int, seconds: float) -> None:
    assert span(levels(FOUND), workers) == seconds


def test_stages_side_by_side_in_one_level_run_one_after_the_other() -> None:
    assert span([[[1.0, 2.0], [4.0, 3.0]]], 2) == 2 + 4


def test_measured_hospitals_stand_for_others_and_a_stage_that_runs_once_stays_alone() -> None:
    assert spread([1.0, 2.0, 3.0], 5) == [1.0, 2.0, 3.0, 1.0, 2.0]
    assert spread([7.0], 64) == [7.0]
    assert span([[spread([1.0, 3.0], 8)]], 8) == 3
    assert span([[spread([1.0, 3.0], 8)]], 1) == 16
