"""Lists of finished runs, two side by side, and the removal of old ones, on runs that no study was run for."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import MappingProxyType

import pytest
from filelock import FileLock
from interrupted import checkpoint
from test_run_folder import run_of
from typer.testing import CliRunner

from flows.changed_answers import changed_answers
from flows.cli.main import app
from flows.cli.terminal import console
from flows.disk import bytes_in, warn_if_large
from flows.run_diff import difference
from flows.run_list import find_run, read_runs, size_of
from tasks.cases.withdrawn import FORGOTTEN
from tasks.errors import StudyError
from tasks.records import Kind, Split
from tasks.store import MANIFEST, ROOT, revising, writing
from tasks.store.runs import point_latest

OLD = 3 * 24 * 3600


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(day: int, images: int = 2, said: Mapping[str, str] = MappingProxyType({}), **settings: object) -> Path:
    """A finished run of a day, as if it had been made then, with so many test images; `said` is answered otherwise."""
    tests: list[tuple[Split, Kind]] = [("test", "open" if n % 2 else "closed") for n in range(images)]
    run = run_of({"hospital-1": [("train", "open"), *tests]}, said=said)
    place = run.with_name(f"202611{day:02}-020000-{run.name[-8:]}")
    run.rename(place)
    if settings:
        with revising(f"runs/{place.name}") as folder:
            found = json.loads((folder.path / "settings.json").read_text())
            found["federation"] |= settings
            folder.write_json("settings.json", found)
    return place


def command(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"}, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_runs_are_listed_from_their_folders_the_newest_first() -> None:
    assert "no finished run" in command("runs")
    older, newer = made(1), made(2, rounds=7)
    (ROOT / "runs" / "20261103-020000-broken").mkdir()
    point_latest(newer)
    found = read_runs()
    assert [run.name for run in found] == [newer.name, older.name]
    assert found[0].changed["federation.rounds"] == 7 and "federation.rounds" not in found[1].changed
    scores = {entry["measure"]: entry["score"] for entry in found[0].scores}
    assert scores["closed_accuracy"] == scores["open_exact_match"] == 1  # all is answered with yes, which is right
    shown = command("runs")
    assert "federation.rounds=7" in shown and "latest" in shown and "1.000" in shown
    (first, _) = json.loads(command("runs", "--json"))
    assert (first["run"], first["used_by"]) == (newer.name, "latest")
    assert first["bytes"] == size_of(found[0].folders) > size_of([f"runs/{newer.name}"]) > 0


def test_a_run_is_found_by_name_folder_or_link() -> None:
    run = made(1)
    point_latest(run)
    assert {find_run(name).name for name in (run.name, str(run), "latest", "artifacts/latest")} == {run.name}
    with pytest.raises(StudyError, match=f"found none at other: the newest are {run.name}"):
        find_run("other")


def test_two_runs_differ_in_their_settings_and_are_tested_on_the_same_cases() -> None:
    one, other = made(1), made(2, rounds=7)
    found = difference(find_run(one.name), find_run(other.name))
    assert found.settings == {"federation.rounds": (4, 7)}
    assert {test["difference"] for test in found.tests} == {0.0} and not found.untested
    shown = command("diff", one.name, other.name)
    assert "federation.rounds" in shown and "+0.000" in shown
    assert json.loads(command("diff", one.name, other.name, "--json"))["settings"] == {"federation.rounds": [4, 7]}


def test_answers_that_changed_are_counted_and_shown_case_by_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right answer is always yes."""
    monkeypatch.setattr(console, "_width", 200)  # a row is a line
    one = made(1, images=6, said={"hospital-1:1": "no", "hospital-1:3": "no", "hospital-1:4": "yes."})
    other = made(2, images=6, said={"hospital-1:2": "no", "hospital-1:3": "perhaps"})
    counts = {"became wrong": 1, "became right": 1, "otherwise": 1, "same": 3}
    assert json.loads(command("diff", one.name, other.name, "--json"))["answers"] == counts
    shown = command("diff", one.name, other.name)
    assert "Of 6 answers to the same cases, 1 became right and 1 wrong, 1 changed otherwise, and 3" in shown
    assert "perhaps" not in shown and "--cases" in shown
    shown = command("diff", one.name, other.name, "--cases")
    lines = [line for line in shown.splitlines() if "hospital-1:" in line]
    wanted = (("became wrong", "hospital-1:2"), ("became right", "hospital-1:1"), ("perhaps", "hospital-1:3"))
    for line, words in zip(lines, wanted, strict=True):
        assert all(word in line for word in words), line
    document = json.loads(command("diff", one.name, other.name, "--cases", "--json"))
    assert document["changed"][1] == {
        "hospital": "hospital-1",
        "case": "hospital-1:1",
        "question": "Is it?",
        "reference": "yes",
        "one": "no",
        "other": "yes",
        "change": "became right",
    }


def test_without_the_hospitals_files_runs_are_set_side_by_side_all_the_same() -> None:
    one, other = made(1), made(2)
    shutil.rmtree(ROOT / "hospitals")
    found = difference(find_run(one.name), find_run(other.name))
    assert not found.tests and "not in these artifacts" in found.untested
    assert changed_answers(one, other) is None
    assert "Of " not in command("diff", one.name, other.name, "--cases")


def folder(area: str, days: float) -> Path:
    """A finished folder that no run refers to."""
    with writing(area, "update", f"key{days}") as made:
        made.write("data.bin", b"0" * 1000)
    path = made.ref.folder
    then = time.time() - days * 24 * 3600
    os.utime(path / MANIFEST, (then, then))
    return path


def checkpoint_at(hospital: str, days: float) -> Path:
    """The checkpoint of a training that was broken off."""
    kept = checkpoint(area=f"hospitals/{hospital}")
    kept.save(lambda folder: folder.joinpath("data.bin").write_bytes(b"0" * 1000) and None)
    then = time.time() - days * 24 * 3600
    os.utime(ROOT / kept.path / MANIFEST, (then, then))
    return ROOT / kept.path


def aged() -> None:
    """All folders as if they had been made some days ago."""
    for path in ROOT.rglob(MANIFEST):
        os.utime(path, (time.time() - OLD,) * 2)


def test_old_runs_go_and_those_in_use_stay_with_all_that_they_need() -> None:
    runs = [made(day) for day in (1, 2, 3, 4)]
    point_latest(runs[0])
    with writing("", "comparisons", "weekly") as comparison:
        comparison.write_json("comparison.json", {"runs": [{"run": runs[1].name}]})
    aged()
    unused, young = folder("hospitals/hospital-1", 2), folder("shared", 0)
    (ROOT / "hospitals/hospital-1" / FORGOTTEN).write_text("[]")
    (ROOT / ".records").mkdir()
    record = ROOT / ".records" / "one"
    record.write_text(json.dumps({"path": unused.relative_to(ROOT).as_posix()}))
    broken_off, of_today = checkpoint_at("hospital-1", 2), checkpoint_at("hospital-2", 0)
    before = {path for path in ROOT.rglob("*") if path.is_file()}
    planned = command("prune", "--keep", "1", "--dry-run")
    assert runs[2].name in planned and "latest" in planned and "comparison weekly" in planned
    assert {path for path in ROOT.rglob("*") if path.is_file()} == before
    command("prune", "--keep", "1")
    assert [path.exists() for path in runs] == [True, True, False, True]
    assert not unused.exists() and young.exists() and not record.exists()
    assert not broken_off.exists() and of_today.exists()
    assert (ROOT / "hospitals/hospital-1" / FORGOTTEN).exists()
    for run in read_runs():
        assert all((ROOT / path / MANIFEST).exists() for path in run.folders)


class Back(datetime):
    """A clock that has gone back by years, as one does whose battery is empty."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Back":
        return cls(2001, 1, 1, tzinfo=tz)


def test_the_newest_run_is_the_last_one_though_the_clock_has_gone_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its runs would be the first that are removed, and the next night would not go on from the last."""
    (ROOT / "runs/20999999-no-run").mkdir(parents=True)
    before = run_of({"hospital-1": [("train", "open"), ("test", "open")]})
    monkeypatch.setattr("tasks.store.runs.datetime", Back)
    monkeypatch.setattr(time, "time", lambda: Back.now(UTC).timestamp())
    after = [run_of({"hospital-1": [("train", "open"), ("test", "open")]}) for _ in range(2)]
    assert [run.name for run in read_runs()] == [after[1].name, after[0].name, before.name]
    unused = folder("shared", 0)  # younger than the clock says it can be
    command("prune", "--keep", "2")
    assert [path.exists() for path in (before, *after)] == [False, True, True]
    assert unused.exists()


def test_while_a_study_runs_no_folder_of_a_stage_is_removed() -> None:
    runs, unused = [made(day) for day in (1, 2)], folder("shared", 2)
    (ROOT / ".running").mkdir()
    lock = ROOT / ".running" / "9d2f0c1e-0000-4000-8000-000000000000"
    with FileLock(lock):
        assert "1 study running" in command("prune", "--keep", "1")
    assert not runs[0].exists() and unused.exists()
    command("prune", "--keep", "1")
    assert not unused.exists()


def test_large_artifacts_are_warned_of_and_nothing_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    made(1)
    held = sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file())
    for most in (None, held):
        warn_if_large(most)
    assert not caplog.messages
    warn_if_large(held - 1)
    assert len(caplog.messages) == 1 and "`fed-rag prune`" in caplog.messages[0]
    assert held == bytes_in(ROOT)
