"""How exponents are fitted, and what is told of them."""

import json
import random
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.growth import exponent, of_turns, worse_than_linear
from benchmarks.scaling import WHOLE, Point, Points

SIZES = (2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("constant", [0.0, 7.0, 1000.0])
@pytest.mark.parametrize("sizes", [SIZES, (1_000, 10_000, 100_000), (0, 1, 3, 10)])
def test_a_known_exponent_is_found_whatever_the_constant_part(
    power: float, constant: float, sizes: tuple[int, ...]
) -> None:
    assert exponent(sizes, [constant + 0.3 * size**power for size in sizes]) == pytest.approx(power, abs=1e-3)


def test_noise_moves_an_exponent_little() -> None:
    draw = random.Random(0)
    costs = [[(5 + size) * draw.uniform(0.97, 1.03) for size in SIZES] for _ in range(50)]
    found = of_turns(SIZES, costs, least=0)
    assert len(found) == 50 and list(found) == sorted(found)
    assert 0.85 < found[0] < 1 < found[-1] < 1.15


def test_the_largest_sizes_decide() -> None:
    """Beside the smallest, which tells the constant part."""
    assert exponent(SIZES, [5, 30, 4, 12, 20, 36]) == exponent(SIZES, [5, 6, 7, 12, 20, 36])


@pytest.mark.parametrize("costs", [[3.0] * 6, [3, 2.9, 2.8, 2.9, 2.7, 2.9], [3, 3.01, 3.02, 3.03, 3.04, 3.05]])
def test_what_does_not_grow_has_no_exponent(costs: list[float]) -> None:
    assert exponent(SIZES, costs, least=0.1) is None


def test_worse_than_linear_is_what_is_so_in_every_turn() -> None:
    assert worse_than_linear([1.2, 1.3, 2.0])
    assert not worse_than_linear([1.05, 1.3, 2.0])
    assert not worse_than_linear([0.9, 1.0, 1.1])
    assert not worse_than_linear([])


def measured() -> Points:
    """Three turns of a linear stage, of a quadratic one, and of others that take little or do not grow."""
    points: Points = {}
    for size in (2, 8, 32):
        costs = {"linear": size, "square": size**2 / 8, "constant": 4.0, "small": size / 1000, WHOLE: 10 + size**2}
        point: Point = {stage: {"seconds": cost, "peak_memory_bytes": 1e9} for stage, cost in costs.items()}
        points[size] = [point] * 3
    return points


def test_a_stage_that_is_worse_than_linear_is_named() -> None:
    told = scaling.verdict("cases", measured(), 0.0)
    assert told == "cases: worse than linear: square"
    rows = list(zip(*(column.cells for column in scaling.table("cases", measured()).columns), strict=True))
    assert [row[0] for row in rows] == [WHOLE, "square", "linear"]  # the others take less than a hundredth
    assert rows[1][1:4] == ("0.50", "128.00", "2.00")


def test_seconds_are_not_judged_on_busy_cores() -> None:
    assert scaling.verdict("cases", measured(), 0.4).startswith("cases: no verdict, since others used 40%")
    assert "an unknown share" in scaling.verdict("cases", measured(), None)


def test_a_single_turn_is_not_judged() -> None:
    once = {size: turns[:1] for size, turns in measured().items()}
    assert scaling.verdict("cases", once, 0.0).startswith("cases: no verdict from a single turn; ")


def test_manifests_are_summed_by_stage(tmp_path: Path) -> None:
    for place, seconds, peak in (
        ("hospitals/a/library/1", 2.0, 30),
        ("hospitals/b/library/2", 3.0, 20),
        ("shared/update/3", 1.0, 40),
        ("runs/now", 9.0, 99),
    ):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"seconds": seconds, "peak_memory_bytes": peak}))
    assert scaling.of_manifests(tmp_path) == {
        "library": {"seconds": 5.0, "peak_memory_bytes": 30},
        "update": {"seconds": 1.0, "peak_memory_bytes": 40},
    }


def test_an_axis_takes_the_place_of_its_former_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scaling.keep("cases", measured(), 0.5)
    scaling.keep("rounds", measured(), None)
    scaling.keep("cases", {3: []}, 0.25)
    found = json.loads((tmp_path / "artifacts/scaling.json").read_text())
    assert found.keys() == {"cases", "rounds"}
    assert found["cases"] == {"share of the cores that others used": 0.25, "points": {"3": []}}


def test_a_library_is_measured_in_parts() -> None:
    found = scaling.library(300)
    assert found.keys() == {f"library: {part}" for part in ("build", "write", "open", "search")}
    assert all(each["seconds"] > 0 and each["peak_memory_bytes"] > 1e7 for each in found.values())


@pytest.mark.slow
def test_a_study_is_measured_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    found = scaling.hospitals(2)
    assert {"ingest", "partition", "cases", "library", "update", "adapter", "predictions", "scores"} < found.keys()
    stages = [each["seconds"] for stage, each in found.items() if stage != WHOLE]
    assert found[WHOLE]["seconds"] > sum(stages) > 0
    assert found[WHOLE]["peak_memory_bytes"] >= max(each["peak_memory_bytes"] for each in found.values()) > 1e8
