"""Studies whose machines share a store that speaks S3, each in a folder of its own."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import pytest
from command import COMMAND, Server, launcher
from s3_samples import CREDENTIALS, bucket
from test_flow import UNEXPLAINED, arguments, newest
from test_runners import DASK, awaited_workers, contents, scheduler

from tasks.records import Case, read_table
from tasks.settings import Study

pytestmark = pytest.mark.slow
FORGET = [str(COMMAND), "forget", "--hospital", "hospital-1", "--yes"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    with bucket(ThreadedMotoServer) as place:
        yield place


@pytest.fixture(scope="module")
def environment(url: str, server: Server) -> Mapping[str, str]:
    return server.environment | {name: os.environ[name] for name in (*CREDENTIALS, "AWS_ENDPOINT_URL")}


@pytest.fixture(scope="module")
def first(
    url: str, environment: Mapping[str, str], tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a study that ran on the first machine."""
    folder = tmp_path_factory.mktemp("first")
    done = launcher().run(arguments(tiny_folder, *UNEXPLAINED, f"artifacts.root={url}"), folder, environment)
    assert done.returncode == 0, done.stderr
    return folder


def seconds(folder: Path) -> dict[str, float]:
    """By folder of a stage, what its manifest says of the time that it took."""
    artifacts = folder / "artifacts"
    return {
        path.parent.relative_to(artifacts).as_posix(): json.loads(path.read_text())["seconds"]
        for area in ("source", "hospitals", "shared")
        for path in (artifacts / area).rglob("manifest.json")
    }


def test_another_machine_takes_what_the_first_has_made(
    first: Path, url: str, environment: Mapping[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    done = launcher().run(arguments(tiny_folder, *UNEXPLAINED, f"artifacts.root={url}"), tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert seconds(tmp_path) == seconds(first)  # to the millisecond, so nothing was computed once more
    assert contents(tmp_path) == contents(first)
    assert (newest(tmp_path) / "results.json").exists()


@pytest.mark.proof
def test_workers_in_folders_of_their_own_share_the_store(
    first: Path, url: str, server: Server, environment: Mapping[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    study, worker = tmp_path / "study", tmp_path / "worker"
    study.mkdir()
    worker.mkdir()
    with scheduler(dict(environment), tmp_path) as address:
        command = [str(DASK), "worker", address, "--nthreads", "1", "--no-dashboard"]
        process = subprocess.Popen(command, cwd=worker, env=environment, stderr=subprocess.DEVNULL)
        try:
            awaited_workers(address, process)
            settings = (f"artifacts.root={url}/anew", "engine.runner=dask", f"engine.cluster={address}")
            done = launcher().run(arguments(tiny_folder, *UNEXPLAINED, *settings), study, environment)
            assert done.returncode == 0, done.stderr
        finally:
            process.terminate()
            process.wait()
    assert list(worker.glob("artifacts/hospitals/*/predictions/*/manifest.json"))
    assert contents(study).keys() <= contents(first).keys()
    both = contents(study).keys() & contents(first).keys()
    assert {name: contents(study)[name] for name in both} == {name: contents(first)[name] for name in both}
    assert any("adapter" in name for name in both)


def test_a_patient_who_withdrew_on_one_machine_is_gone_from_the_store_and_the_others(
    first: Path, url: str, environment: Mapping[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    machines = [tmp_path / name for name in ("one", "other")]
    for folder in machines:
        shutil.copytree(first, folder, symlinks=True)
    place = next(first.glob("artifacts/hospitals/hospital-1/cases/*/cases.parquet"))
    images = list(dict.fromkeys(case.image_id for case in read_table(place, Case)))[:2]
    for folder, image in zip(machines, images, strict=True):  # neither has heard of the other's
        gone = launcher().run([*FORGET, "--patient", image], folder, environment)
        assert gone.returncode == 0, gone.stderr
    told = [
        launcher().run(arguments(tiny_folder, *UNEXPLAINED), folder, environment) for folder in (*machines, machines[0])
    ]
    assert all(done.returncode == 0 for done in told), told
    assert "erased at hospital-1 who withdrew" in told[0].stderr
    assert "erased at hospital-1" not in told[2].stderr
    for folder in machines:
        held = list(folder.glob("artifacts/hospitals/hospital-1/cases/*/cases.parquet"))
        assert held and not {case.image_id for path in held for case in read_table(path, Case)} & set(images)
    stored = tmp_path / "stored"
    files, top = fsspec.core.url_to_fs(url)
    files.get(f"{top}/hospitals/hospital-1", str(stored), recursive=True)
    held = list(stored.rglob("cases.parquet"))
    assert held and not {case.image_id for path in held for case in read_table(path, Case)} & set(images)


def test_a_store_that_is_not_there_is_one_sentence(
    environment: Mapping[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    done = launcher().run(arguments(tiny_folder, "artifacts.root=s3://no-such-bucket/x"), tmp_path, environment)
    assert done.returncode == 1
    assert "Expected a store that can be read and written at s3://no-such-bucket/x (artifacts.root)" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_of_noise_are_not_shared() -> None:
    private = {"privacy": {"unit": "patient", "epsilon": 8}}
    with pytest.raises(ValueError, match=r"expected no artifacts.root with federation.privacy.unit patient"):
        Study.model_validate({"artifacts": {"root": "s3://x"}, "federation": private, "retrieval": {"k": 0}})
