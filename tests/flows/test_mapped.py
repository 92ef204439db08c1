"""One stage at many hospitals: batches make what single task runs make, and are fewer."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Server
from prefect import Task, flow, unmapped
from prefect.context import FlowRunContext
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

import flows.mapped as mapped
from flows.mapped import BATCHES, SINGLE, answers, gather
from tasks.errors import StudyError
from tasks.store import ROOT, Ref
from tasks.store.again import Again, asking
from tasks.store.stage import Folder, stage

pytestmark = pytest.mark.slow
worked: list[str] = []
failing: set[str] = set()


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Iterator[Task[..., Ref]]:
    """A stage that writes down what it was given, unless the hospital is one that fails."""
    monkeypatch.chdir(tmp_path)  # a stage's records are where it is defined
    worked.clear()
    failing.clear()

    @stage("noted", area="hospitals/{hospital}", title="note {hospital}")
    def noting(folder: Folder, hospital: str, number: int, shared: str = "default") -> None:
        worked.append(hospital)
        if hospital in failing:
            raise StudyError(f"{hospital} has no cases.") if hospital.endswith("0") else ValueError("broken")
        folder.write_json("given.json", {"hospital": hospital, "number": number, "shared": shared})

    with temporary_settings({PREFECT_API_URL: server.url}):
        yield noting


def names(count: int) -> list[str]:
    return [f"h{number}" for number in range(count)]


def in_flow(work: Callable[[], Any]) -> Any:
    """What the work returns in a flow run, and the run's id."""

    @flow(name="mapped", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
    def run() -> Any:
        context = FlowRunContext.get()
        assert context and context.flow_run
        return work(), str(context.flow_run.id)

    return run()


def noted(note: Task[..., Ref], count: int) -> list[Ref]:
    return gather(note, names(count), hospital=names(count), number=list(range(count)))


def titles(server: Server, flow_run: str) -> list[str]:
    server.await_records()
    rows = server.post("task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [flow_run]}}, "limit": 200})
    return [row["name"] for row in rows]


def stored() -> dict[str, bytes]:
    """All finished files but the manifests' times and memory, and what Prefect finds them by."""
    files = {path: path.read_bytes() for path in sorted(ROOT.rglob("*")) if path.is_file() and path.name != ".lock"}
    found = {str(path): data for path, data in files.items() if path.name != "manifest.json"}
    for path, data in files.items():
        if path.name == "manifest.json":
            found[str(path)] = json.dumps(json.loads(data) | {"seconds": 0, "peak_memory_bytes": 0}).encode()
    return found


def test_batches_leave_the_files_and_records_of_single_task_runs(
    note: Task[..., Ref], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = SINGLE + 1
    batched, _ = in_flow(lambda: noted(note, count))
    by_batches = stored()
    assert [ref.path.split("/")[1] for ref in batched] == names(count)
    for path in ROOT.rglob("*"):
        if path.is_file():
            path.unlink()
    monkeypatch.setattr(mapped, "SINGLE", count)
    single, _ = in_flow(lambda: noted(note, count))
    assert batched == single
    assert stored() == by_batches and len(by_batches) == 3 * count


@pytest.mark.parametrize(("count", "runs"), [(SINGLE, SINGLE), (SINGLE + 1, 13), (10 * SINGLE + 7, BATCHES)])
def test_many_hospitals_are_few_task_runs(note: Task[..., Ref], server: Server, count: int, runs: int) -> None:
    _, run = in_flow(lambda: noted(note, count))
    found = titles(server, run)
    assert len(found) == runs
    if count > SINGLE:
        size = math.ceil(count / BATCHES)
        assert f"note h{size} and at {size - 1} other hospitals" in found
    else:
        assert set(found) == {f"note {name}" for name in names(count)}


def test_who_fails_in_a_batch_is_named_and_the_others_work_is_kept(note: Task[..., Ref], server: Server) -> None:
    count = 2 * SINGLE
    failing.update({"h3", "h20", "h100"})

    def work() -> Any:
        return answers(note, names(count), hospital=names(count), number=unmapped(1))

    with disable_run_logger():
        (answered, missing), run = in_flow(work)
        assert list(answered) == [name for name in names(count) if name not in failing]
        assert {name: str(error) for name, error in missing.items()} == {
            "h3": "broken",
            "h20": "h20 has no cases.",
            "h100": "h100 has no cases.",
        }
        assert worked == names(count)
        with pytest.raises(StudyError, match=r"^3 of 128 hospitals failed, first h3: ValueError: broken \(the others'"):
            in_flow(lambda: gather(note, names(count), hospital=names(count), number=unmapped(1)))
    server.await_records()
    rows = server.post("task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
    failed = {row["name"]: row["state"]["message"] for row in rows if row["state"]["type"] == "FAILED"}
    assert set(failed) == {f"note {first} and at 7 other hospitals" for first in ("h0", "h16", "h96")}
    assert "1 of 8 hospitals failed, first h20: h20 has no cases." in failed["note h16 and at 7 other hospitals"]


def test_a_second_run_works_on_only_where_work_is_missing_or_damaged(note: Task[..., Ref]) -> None:
    count = 2 * SINGLE
    failing.update({"h3", "h20"})
    with disable_run_logger(), pytest.raises(StudyError):
        in_flow(lambda: noted(note, count))
    failing.clear()
    worked.clear()
    (damaged,) = ROOT.glob("hospitals/h50/noted/*/given.json")
    damaged.write_text("else")
    refs, _ = in_flow(lambda: noted(note, count))
    assert worked == ["h3", "h20", "h50"]
    assert all(ref.verified() for ref in refs)


def test_a_request_to_do_it_again_holds_in_batches(note: Task[..., Ref]) -> None:
    count = 2 * SINGLE
    in_flow(lambda: noted(note, count))
    worked.clear()
    request = Again("noted", "run")
    with asking(request):
        in_flow(lambda: noted(note, count))
    assert worked == names(count)
    assert request.same == count
