"""Where mapped tasks run, on workers of a cluster or in this process, and that it makes no difference."""

import json
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import PREFECT, Server, run, start
from pydantic import ValidationError
from test_flow import UNEXPLAINED, arguments

from flows import attack, cells
from flows.cells import run_cells
from flows.parts import Part
from flows.runners import dask, runner
from flows.runners.homes import Homes
from flows.runners.runner import HERE, Place, in_this_process, studies_at_once, task_runner, working_on
from tasks.compare.attack_results import Row
from tasks.errors import StudyError
from tasks.records.federation import LibrarySources
from tasks.settings import EngineSettings, FederationSettings, Study
from tasks.settings.attack import AttackTable
from tasks.settings.comparison import Cell
from tasks.store import Ref

DASK = PREFECT.with_name("dask")


def sources(name: str) -> LibrarySources:
    cases, features = (Ref(path=f"hospitals/{name}/{stage}/k", digest="d") for stage in ("cases", "features"))
    return LibrarySources(name=name, cases=cases, features=features, encoded=None)


def test_each_hospital_keeps_one_worker_and_workers_share_them_evenly() -> None:
    homes = Homes(lambda: {"one", "two"}, lambda path: set())
    found = {name: homes.of({"hospital": name}) for name in "abcd"}
    assert sorted(found.values()) == ["one", "one", "two", "two"]
    assert {name: homes.of({"hospital": sources(name)}) for name in "dcba"} == found


def test_a_hospital_goes_where_its_features_are() -> None:
    homes = Homes(lambda: {"one", "two"}, lambda path: {"two"} if "/a/" in path or "/b/" in path else set())
    assert [homes.of({"hospital": sources(name)}) for name in "abc"] == ["two", "two", "one"]


def test_the_hospitals_of_a_worker_that_left_go_to_those_that_are_there() -> None:
    there = {"one", "two"}
    homes = Homes(lambda: there, lambda path: set())
    before = {name: homes.of({"hospital": name}) for name in "ab"}
    there -= {"one"}
    assert set(before.values()) == {"one", "two"}
    assert {homes.of({"hospital": name}) for name in "ab"} == {"two"}


def test_a_task_of_no_hospital_goes_to_any_worker() -> None:
    assert Homes(lambda: {"one"}, lambda path: set()).of({"settings": 1}) is None


def test_a_part_travels_by_name_without_what_it_does() -> None:
    lock = threading.Lock()  # which nothing can send elsewhere
    arrived = pickle.loads(pickle.dumps(Part(lambda: lock, name="round")))
    assert arrived.name == "round"
    assert arrived.fn() is None


def test_without_a_cluster_tasks_run_here_one_study_at_a_time() -> None:
    with working_on(EngineSettings()):
        assert studies_at_once() == 1
        assert type(task_runner(3)) is type(in_this_process(3))


@contextmanager
def pretended(engine: EngineSettings) -> Iterator[Place]:
    yield Place(in_this_process, workers=2)


def cell(number: int) -> Cell:
    return Cell("configurations", f"c{number}", "none", 0, Study(seed=number))


def test_within_a_cluster_that_cluster_is_used_and_afterwards_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "cluster", pretended)
    with working_on(EngineSettings(runner="dask")):
        monkeypatch.delattr(dask, "cluster")  # a second one would be missed
        with working_on(EngineSettings(runner="dask")), working_on(EngineSettings()):
            assert studies_at_once() == 2
        assert studies_at_once() == 2
    assert studies_at_once() == 1


def test_a_runner_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"package prefect-dask for engine.runner=dask, found none: `pip install"):
        working_on(EngineSettings(runner="dask")).__enter__()
    assert HERE.workers == studies_at_once() - 1 == 0


def test_studies_of_a_comparison_run_at_once_on_a_cluster_and_are_told_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = threading.Barrier(2)

    def fake(each: Cell) -> tuple[Path, bool]:
        both.wait(30)  # never both here, were they one after the other
        if each.study.seed == 1:
            raise StudyError("too few")
        time.sleep(0.2 * (each.study.seed == 0))  # the first is the last to end
        return Path(each.name), each.study.seed == 2

    monkeypatch.setattr(cells, "run_cell", fake)
    monkeypatch.setattr(dask, "cluster", pretended)
    with working_on(EngineSettings(runner="dask")):
        found = list(run_cells([cell(number) for number in range(4)]))
    assert [each.cell.name for each in found] == ["c0", "c1", "c2", "c3"]
    assert [each.run for each in found] == [Path("c0"), None, Path("c2"), Path("c3")]
    assert [each.reason for each in found] == ["", "too few", "", ""]
    assert [each.seconds is None for each in found] == [False, True, True, False]


def test_cells_under_attack_run_at_once_on_a_cluster_once_their_hospitals_are_prepared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, prepared, told = threading.Barrier(2), list[int](), list[str]()

    class Pretended:
        model = None

        def hospitals(self, study: Study) -> list[Any]:
            prepared.append(study.seed)
            return []

        def done(self, what: str) -> None:
            told.append(what)

    def fake(study: Study, model: None, hospitals: list[Any], name: str, title: str) -> str:
        assert prepared[:4] == [0, 0, 1, 1]
        both.wait(30)  # never both here, were they one after the other
        time.sleep(0.2 * (name == "none"))  # the first of two is the last to end
        return f"{name} {study.seed}"

    monkeypatch.setattr(attack, "run_cell", fake)
    monkeypatch.setattr(dask, "cluster", pretended)
    row, scenes = Row("fedavg", 1, 8), Pretended()
    with working_on(EngineSettings(runner="dask")):
        table = AttackTable(attacks=("nan",), seeds=(0, 1))
        found = attack.run_cells(table, [row], ["none", "nan"], {}, scenes, scenes)  # type: ignore[arg-type]
    assert found == {(row, "none"): ["none 0", "none 1"], (row, "nan"): ["nan 0", "nan 1"]}
    assert [line.split(":")[0].split(", ", 1)[1] for line in told] == [
        f"1 {name}, seed {seed}" for seed in (0, 1) for name in ("none", "nan")
    ]


def test_in_this_process_studies_of_a_comparison_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(cells, "run_cell", lambda each: (begun.append(each.name) or Path(each.name), False))
    coming = run_cells([cell(0), cell(1)])
    assert (next(coming).run, begun) == (Path("c0"), ["c0"])
    assert (next(coming).run, begun) == (Path("c1"), ["c0", "c1"])


def test_what_cannot_run_on_a_cluster_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"expected executor mapped with runner dask"):
        EngineSettings(executor="batched", runner="dask")
    with pytest.raises(ValidationError, match=r"expected runner dask or ray with cluster tcp://x"):
        EngineSettings(cluster="tcp://x")
    with pytest.raises(ValidationError, match=r"expected another engine.runner with federation.runtime flower"):
        Study(engine=EngineSettings(runner="dask"), federation=FederationSettings(runtime="flower"))


class Started:
    """A worker, as a plugin sees it."""

    def __init__(self, name: int | str) -> None:
        self.name = name


@pytest.mark.parametrize("gpus, name, given", [(2, 3, "1"), (2, 0, "0"), (0, 3, None), (2, "tcp://of-a-user", None)])
def test_workers_take_the_gpus_of_their_machine_in_turn(
    gpus: int, name: Any, given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(gpus):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr(dask, "GPUS", tmp_path)
    environment: dict[str, str] = {}
    monkeypatch.setattr(dask.os, "environ", environment)
    dask.Ready().setup(Started(name))  # type: ignore[arg-type]
    assert environment.get("CUDA_VISIBLE_DEVICES") == given


def test_a_worker_that_was_started_with_a_gpu_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0").mkdir()
    monkeypatch.setattr(dask, "GPUS", tmp_path)
    environment = {"CUDA_VISIBLE_DEVICES": "5"}
    monkeypatch.setattr(dask.os, "environ", environment)
    dask.Ready().setup(Started(0))  # type: ignore[arg-type]
    assert environment == {"CUDA_VISIBLE_DEVICES": "5"}


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "CONNECTED_WITHIN_S", 0.5)
    with (
        pytest.raises(
            StudyError, match=r"Expected a Dask scheduler at tcp://127.0.0.1:1 \(engine.cluster\), found none"
        ),
        dask.cluster(EngineSettings(runner="dask", cluster="tcp://127.0.0.1:1")),
    ):
        pass


FILES = ("*.safetensors", "*.parquet", "*.npz", "counts.json")


def contents(folder: Path) -> dict[str, bytes]:
    """What the stages of a study made, by path."""
    artifacts = folder / "artifacts"
    return {
        path.relative_to(artifacts).as_posix(): path.read_bytes()
        for area in ("source", "hospitals", "shared")
        for kind in FILES
        for path in (artifacts / area).rglob(kind)
    }


@pytest.fixture(scope="module")
def here(server: Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that ran in one process."""
    folder = tmp_path_factory.mktemp("here")
    done = run(server, folder, arguments(tiny_folder, *UNEXPLAINED))
    assert done.returncode == 0, done.stderr
    return folder


BOTH = pytest.mark.parametrize("engine", ["dask", pytest.param("ray", marks=pytest.mark.proof)])


@pytest.mark.slow
@BOTH
def test_two_workers_make_the_same_bytes_as_this_process(
    engine: str, here: Path, server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    command = arguments(tiny_folder, *UNEXPLAINED, f"engine.runner={engine}")
    done = start(command, tmp_path, server.environment)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"distributed|ray", done.stderr)  # what a cluster says of itself
    assert contents(tmp_path) == contents(here)
    assert set(server.task_states().values()) == {"Completed"}
    again = run(server, tmp_path, command)
    assert again.returncode == 0, again.stderr
    mapped = {name: state for name, state in server.task_states().items() if "hospital-" in name}
    assert mapped and set(mapped.values()) == {"Cached"}
    if engine == "dask":
        does_again_on_workers(server, command, tmp_path)


def does_again_on_workers(server: Server, command: list[str], folder: Path) -> None:
    """From the libraries on, hospitals' work and what follows is done again, to the same bytes, and nothing before."""
    before = contents(folder)
    done = run(server, folder, [*command, "--from", "library"])
    assert done.returncode == 0, done.stderr
    found = re.search(r"from library on, (\d+) folders made again: (\d+) with the same content", done.stderr)
    assert found and found[1] == found[2]
    states = server.task_states()
    assert {state for name, state in states.items() if name.startswith("features hospital")} == {"Cached"}
    again = {name for name, state in states.items() if state == "Completed"}
    assert {name.split()[0] for name in again} >= {"library", "train", "aggregate"}
    manifests = (folder / "artifacts").rglob("manifest.json")
    made = {path.parts[-3] for path in manifests if json.loads(path.read_text()).get("again")}
    assert {"library", "update", "predictions"} <= made and not made & {"cases", "features"}
    assert contents(folder) == before


def workers_of(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """Those of its children that are workers."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [each for each in children if re.search(r"spawn_main|[Dd]ask [Ww]orker|ray::A", " ".join(each.cmdline()))]


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_study_goes_on_when_a_worker_is_killed(
    engine: str, here: Path, server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    command = arguments(tiny_folder, *UNEXPLAINED, f"engine.runner={engine}")
    process = subprocess.Popen(command, cwd=tmp_path, env=server.environment, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("artifacts/hospitals/*/features/*/manifest.json")):
        time.sleep(0.1)
        assert process.poll() is None
    workers_of(process)[0].kill()
    _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert contents(tmp_path) == contents(here)


@contextmanager
def scheduler(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """A Dask scheduler as a user starts it; gives its address."""
    command = [str(DASK), "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    place = folder / "scheduler.json"
    command += ["--scheduler-file", str(place)]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not place.exists() or not place.read_text():
            time.sleep(0.1)
            assert process.poll() is None
        yield json.loads(place.read_text())["address"]
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_workers_of_a_running_cluster_are_used_and_looked_at_first(
    here: Path, server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    elsewhere, study = tmp_path / "elsewhere", tmp_path / "study"
    elsewhere.mkdir()
    study.mkdir()
    with scheduler(server.environment, tmp_path) as address:
        command = arguments(tiny_folder, *UNEXPLAINED, "engine.runner=dask", f"engine.cluster={address}")
        none = run(server, study, command)
        assert none.returncode == 1
        assert "Expected a Dask cluster with workers, found none: start some with `dask worker" in none.stderr
        for folder in (elsewhere, study):
            worker = [str(DASK), "worker", address, "--nthreads", "1", "--no-dashboard"]
            process = subprocess.Popen(worker, cwd=folder, env=server.environment, stderr=subprocess.DEVNULL)
            try:
                awaited_workers(address, process)
                done = run(server, study, command)
                if folder == elsewhere:
                    assert done.returncode == 1
                    assert "Expected workers that see" in done.stderr and "in another folder" in done.stderr
                    assert "Traceback" not in done.stderr
                else:
                    assert done.returncode == 0, done.stderr
            finally:
                process.terminate()
                process.wait()
    assert contents(study) == contents(here)


def awaited_workers(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the scheduler knows of the worker that runs in a process."""
    code = f"import distributed; print(list(distributed.Client({address!r}).nthreads()))"
    while b"tcp" not in subprocess.run([sys.executable, "-c", code], capture_output=True).stdout:
        assert process.poll() is None
