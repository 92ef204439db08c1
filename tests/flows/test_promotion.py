"""The run that is served: switched after its gates, by hand, and back, on runs that no study was run for."""

import json
from pathlib import Path

import pytest
from command import Server, run
from test_flow import UNEXPLAINED, arguments
from test_runs import command, made

from flows.promotion import NOT_PROMOTED, consider, current, promote, rollback
from tasks.errors import StudyError
from tasks.promote.record import place, read
from tasks.settings.promotion import PromotionSettings
from tasks.store import ROOT


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_first_run_becomes_current_and_a_run_that_fails_a_gate_does_not() -> None:
    first, second = made(1), made(2)
    assert consider(first, PromotionSettings()).promoted
    assert current().name == first.name  # type: ignore[union-attr]
    refused = consider(second, PromotionSettings(max_epsilon=8))
    assert not refused.promoted and (ROOT / "current").resolve().name == first.name
    assert f"{second.name} is not promoted: epsilon (not measured in this run" in refused.sentence
    assert f"{first.name} stays current" in refused.sentence
    assert [entry["kind"] for entry in read()] == ["promotion", "refusal"]
    assert {gate["name"]: gate["passed"] for gate in read()[1]["gates"]}["epsilon"] is False


def test_a_run_that_answers_as_well_as_the_current_one_takes_its_place() -> None:
    first, second = (made(day, images=12) for day in (1, 2))
    consider(first, PromotionSettings())
    verdict = consider(second, PromotionSettings())
    assert verdict.sentence.startswith(f"{second.name} is current now, in place of {first.name}. Of 12 answers")
    assert [gate.name for gate in verdict.gates] == ["not worse than the current run"]


def test_the_record_counts_the_answers_that_change_and_holds_none() -> None:
    first, second = made(1, images=6), made(2, images=6, said={"hospital-1:2": "pneumothorax"})
    assert consider(first, PromotionSettings()).answers is None
    promoted = promote(second.name, "because")
    assert "1 wrong" in promoted.sentence and promoted.sentence.startswith(f"{second.name} is current now")
    rollback("better before")
    counts = [entry["answers"] for entry in read()]
    assert counts[0] is None
    assert counts[1] == {"became wrong": 1, "became right": 0, "otherwise": 0, "same": 5}
    assert counts[2] == {"became wrong": 0, "became right": 1, "otherwise": 0, "same": 5}
    assert "pneumothorax" not in place().read_text() and "-1" in command("promotions")


def test_by_hand_a_run_is_promoted_for_a_reason_and_each_promotion_can_be_undone() -> None:
    runs = [made(day) for day in (1, 2, 3)]
    for each in runs:
        promote(each.name, "because I say so")
    assert "is current now" in command("rollback", "--because", "worse at night")
    assert (ROOT / "current").resolve().name == runs[1].name
    rollback("and once more")
    assert (ROOT / "current").resolve().name == runs[0].name
    with pytest.raises(StudyError, match="an earlier run to go back to, found none"):
        rollback("too far")
    with pytest.raises(StudyError, match="Expected a reason"):
        promote(runs[2].name, " ")
    assert [entry["kind"] for entry in read()] == ["override"] * 3 + ["rollback"] * 2
    shown = command("promotions")
    assert "worse at night" in shown and "rollback" in shown
    assert json.loads(command("runs", "--json"))[-1]["used_by"] == "current"


def test_a_damaged_run_is_not_promoted() -> None:
    run = made(1)
    (run / "results.md").write_text("other")
    with pytest.raises(StudyError, match="found some changed"):
        promote(run.name, "because")
    assert not (ROOT / "current").exists() and read() == []


@pytest.mark.slow
def test_a_study_is_promoted_at_its_end_or_its_state_says_that_it_was_not(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    given = arguments(tiny_folder, *UNEXPLAINED, "federation.rounds=1", "promotion.enabled=true")
    assert run(server, tmp_path, given).returncode == 0
    current = (tmp_path / "artifacts/current").resolve()
    refused = run(server, tmp_path, [*given, "--set", "promotion.max_epsilon=8"])
    assert refused.returncode == 0 and "is not promoted: epsilon (not measured in this run" in refused.stderr
    latest = (tmp_path / "artifacts/latest").resolve()
    assert (tmp_path / "artifacts/current").resolve() == current != latest
    refusing, promoting, *_ = server.begun_runs(parent_task_run_id={"is_null_": True})
    assert (refusing["state_name"], promoting["state_name"]) == (NOT_PROMOTED, "Completed")
