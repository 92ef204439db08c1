"""`fed-rag run --from STAGE`: what runs again, what stays, and what is refused."""

import json
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, PREFECT, Server, run
from test_flow import UNEXPLAINED, arguments, newest
from test_keys import found_stages

from flows.again import STAGES, refuse_unknown
from tasks.errors import StudyError
from tasks.settings import FederationSettings, Study
from tasks.store import Ref, find, writing
from tasks.store.again import Again, asked_again, asking

FLOWS_OF_THEIR_OWN = {"altered", "falsified", "footprint", "lightfed", "twin", "tower", "base", "stage", "audit-seen"}
FLOWS_OF_THEIR_OWN |= {"hospital", "told-scores", "coalitions", "contributions", "radiology", "varied"}
FLOWS_OF_THEIR_OWN |= {"trained-elsewhere", "used"}
"""Stages of other flows than the study."""


@pytest.fixture
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, text: str, again: str | None = None) -> Ref:
    with writing("shared", name, "0") as folder:
        folder.again = again
        folder.write("file", text.encode())
    return folder.ref


def test_every_stage_of_a_study_can_be_named() -> None:
    known = {task.name for _, task in found_stages()}
    assert set(STAGES) <= known and len(set(STAGES)) == len(STAGES)
    assert known - set(STAGES) - FLOWS_OF_THEIR_OWN == set()


@pytest.mark.parametrize("what", ["libraries", "round 3", "round 0", "update ", ""])
def test_an_unknown_name_is_refused_with_all_names(what: str) -> None:
    two = Study(federation=FederationSettings(rounds=2))
    with pytest.raises(StudyError) as error:
        refuse_unknown(what, two)
    said = str(error.value)
    assert "round 1 to round 2" in said and said.endswith(f"found {what!r}.")
    assert all(stage in said for stage in STAGES)


def test_known_names_pass() -> None:
    for what in (*STAGES, "prepare", "round 1", "round 4", "evaluate"):
        refuse_unknown(what, Study())


@pytest.mark.usefixtures("_store")
def test_what_follows_is_found_by_references_and_not_by_content() -> None:
    again = Again("update", "me")
    one = made("update", "same")
    assert not again.covers("shared/library/0", ("library", "prepare"), ["shared/cases/0"])
    assert again.covers(one.path, ("update", "round 1"), ["shared/library/0"])
    assert again.covers("shared/adapter/0", ("adapter", "round 1"), [one.path])
    assert again.covers("shared/scores/0", ("scores", "evaluate"), ["shared/adapter/0", "shared/cases/0"])
    assert not again.covers("shared/seen/0", ("seen", "prepare"), ["shared/cases/0"])
    assert Again("round 1", "me").covers(one.path, ("update", "round 1"), [])


@pytest.mark.usefixtures("_store")
def test_a_folder_is_done_once_a_run_and_compared_with_the_one_before() -> None:
    again = Again("update", "me")
    same, other = made("update", "same"), made("adapter", "before")
    for path in (same.path, other.path, "shared/fresh/0"):
        assert again.covers(path, ("update",), [])
        assert not again.is_done(path)
    made("update", "same", "me"), made("adapter", "after", "me"), made("fresh", "new", "me")
    assert all(again.is_done(path) for path in again.before)
    assert not Again("update", "another").is_done(same.path)
    assert again.same == 1 and again.covers(same.path, ("update",), [])
    assert find(same.path).digest == same.digest


def test_a_request_holds_within_its_context_alone() -> None:
    again = Again("update", "me")
    with asking(again), asking(None):
        assert asked_again() is None
    with asking(again):
        assert asked_again() is again
    assert asked_again() is None


def test_the_command_refuses_before_anything_starts(tmp_path: Path, server: Server) -> None:
    done = run(server, tmp_path, [str(COMMAND), "run", "--from", "libraries"])
    assert done.returncode == 1 and done.stderr.count("error:") == 1
    assert "Expected --from to name a part of the study" in done.stderr and "library" in done.stderr
    assert not (tmp_path / "artifacts").exists()


@pytest.fixture(scope="module")
def finished(server: Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again")
    done = run(server, folder, arguments(tiny_folder, *UNEXPLAINED))
    assert done.returncode == 0, done.stderr
    return folder


def digests(run: Path) -> dict[str, str]:
    """Of all folders that a run was made from, by path."""
    artifacts = run.parents[1]
    made = [path for area in ("source", "hospitals", "shared") for path in (artifacts / area).glob("**/manifest.json")]
    return {path.parent.relative_to(artifacts).as_posix(): json.loads(path.read_text())["digest"] for path in made}


def inode(folder: Path, path: str) -> int:
    """What tells a file from another one of the same name."""
    return (folder / "artifacts" / path / "manifest.json").stat().st_ino


@pytest.mark.slow
def test_a_round_and_what_follows_run_again_and_come_out_the_same(
    server: Server, finished: Path, tiny_folder: Path
) -> None:
    before = digests(newest(finished))
    inodes = {path: inode(finished, path) for path in before}
    done = run(server, finished, [*arguments(tiny_folder, *UNEXPLAINED), "--from", "round 2"])
    assert done.returncode == 0, done.stderr
    states = server.task_states()
    ran = {name for name, state in states.items() if state == "Completed"}
    hospitals = ("hospital-1", "hospital-2", "hospital-3")
    assert ran >= {f"train {each} round 2" for each in hospitals} | {"aggregate round 2"}
    assert ran >= {f"{what} {each}" for what in ("fed+rag", "score") for each in hospitals}
    left = {name for name, state in states.items() if state == "Cached"}
    assert left >= {f"train {each} round 1" for each in hospitals} | {"partition", "library hospital-1"}
    assert left >= {f"baselines {each}" for each in hospitals}
    assert ran | left == set(states)
    assert f"from round 2 on, {len(ran)} folders made again: {len(ran)} with the same content" in done.stderr
    assert digests(newest(finished)) == before
    changed = [path for path in before if inode(finished, path) != inodes[path]]
    assert len(changed) == len(ran)
    again = run(server, finished, arguments(tiny_folder, *UNEXPLAINED))  # nothing is left to do after that
    assert again.returncode == 0 and set(server.task_states().values()) == {"Cached"}


@pytest.mark.slow
@pytest.mark.proof
def test_a_retry_does_not_begin_once_more(server: Server, finished: Path, tiny_folder: Path) -> None:
    """The request is a parameter of the flow run, and each folder remembers the run that made it again."""
    command = [*arguments(tiny_folder, *UNEXPLAINED), "--from", "scores"]
    assert run(server, finished, command).returncode == 0
    ended = server.newest_run()
    assert ended["parameters"]["again_from"] == "scores"
    assert {name for name, state in server.task_states().items() if state == "Completed"} == {
        f"score {each}" for each in ("hospital-1", "hospital-2", "hospital-3")
    }
    failed = {"state": {"type": "FAILED", "name": "Failed"}, "force": True}
    server.post(f"flow_runs/{ended['id']}/set_state", failed)
    entrypoint = f"{Path(__file__).parents[2]}/flows/fed_rag.py:fed_rag"
    retried = subprocess.run(
        [PREFECT, "flow-run", "retry", ended["id"], "--entrypoint", entrypoint],
        cwd=finished,
        env=server.environment,
        capture_output=True,
        text=True,
    )
    assert retried.returncode == 0, retried.stderr + retried.stdout
    parts = server.parts_of(ended["id"])
    newest_part = [part["id"] for part in parts if part["name"] == "evaluate"][-1]
    wanted = {"flow_runs": {"id": {"any_": [newest_part]}}, "limit": 200}
    assert {row["state_name"] for row in server.post("task_runs/filter", wanted)} <= {"Cached", "Completed"}
    scores = [row for row in server.post("task_runs/filter", wanted) if row["name"].startswith("score ")]
    assert [row["state_name"] for row in sorted(scores, key=lambda row: row["start_time"])][-3:] == ["Cached"] * 3
