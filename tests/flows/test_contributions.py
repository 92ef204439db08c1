"""What each hospital brought to a run: whole, the same again, and refused where single updates are not known."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import COMMAND, Server, run
from test_strategies_flow import arguments

pytestmark = pytest.mark.slow
WANTED = [str(COMMAND), "contributions", "--json"]


def test_hospitals_parts_add_up_and_are_found_again(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    command = arguments(tiny_folder, "federation.strategy=fedavgm", "federation.holdout=0.3")
    assert run(server, tmp_path, command).returncode == 0
    done = run(server, tmp_path, WANTED)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    results = json.loads((tmp_path / "artifacts/latest/results.json").read_text())
    before, after = (row["eval_loss"] for row in results["rounds"])
    assert found["round"] == 2 and found["exact"] and found["orders"] == 6
    assert found["loss_before"] == pytest.approx(before) and found["loss_after"] == pytest.approx(after)
    assert sum(row["shapley"] for row in found["hospitals"]) == pytest.approx(before - after)
    assert [row["hospital"] for row in found["hospitals"]] == ["hospital-1", "hospital-2", "hospital-3"]
    assert len({row["alone"] for row in found["hospitals"]}) == 3
    (table,) = tmp_path.glob("artifacts/shared/contributions/*/contributions.parquet")
    assert pq.read_table(table).to_pylist() == found["hospitals"]
    assert "What each hospital brought" in (tmp_path / "artifacts/latest/report.html").read_text(encoding="utf-8")
    again = run(server, tmp_path, WANTED)
    assert json.loads(again.stdout) == found
    assert set(server.task_states().values()) == {"Cached"}


def test_what_a_secure_sum_hides_is_not_asked_for(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    command = arguments(tiny_folder, "federation.secure_aggregation=true", "federation.rounds=1")
    assert run(server, tmp_path, command).returncode == 0
    done = run(server, tmp_path, WANTED)
    assert done.returncode == 1 and not done.stdout
    assert "found one with federation.secure_aggregation: it hides them" in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("artifacts/shared/coalitions/*"))
