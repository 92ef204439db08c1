"""What folders were made from: named as they were asked for last, and walked from results to sources."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Server
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.store import ROOT, Ref, find, revising, writing
from tasks.store.provenance import inputs_of, name_inputs, walk
from tasks.store.stage import Folder, stage


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(path: str, *inputs: str, content: bytes = b"") -> Ref:
    area, name, key = path.rsplit("/", 2)
    with writing(area, name, key) as folder:
        folder.inputs = list(inputs)
        folder.write("content", content)
    return folder.ref


def bytes_in(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir() if each.name != "manifest.json"}


def test_a_folder_names_what_it_was_asked_for_with_last_and_keeps_what_else_it_was_made_from() -> None:
    ref = make("shared/update/1", "hospitals/a/cases/1", "shared/adapter/1", content=b"x")
    before = ref.manifest()
    for inputs, former in (
        (["hospitals/a/cases/2", "shared/adapter/1"], ["hospitals/a/cases/1"]),
        (["hospitals/a/cases/3", "shared/adapter/1"], ["hospitals/a/cases/1", "hospitals/a/cases/2"]),
        (["hospitals/a/cases/1", "shared/adapter/1"], ["hospitals/a/cases/2", "hospitals/a/cases/3"]),
    ):
        name_inputs(ref.path, inputs)
        assert inputs_of(ref.path) == inputs
        assert inputs_of(ref.path, former=True) == [*inputs, *former]
        assert ref.verified() == find(ref.path) == ref
        assert ref.manifest() == before | {"inputs": inputs, "former_inputs": former}
    assert {path.name for path in ref.folder.parent.iterdir()} <= {"1", ".lock"}
    with revising(ref.path) as folder:
        folder.write("content", b"y")
    assert inputs_of(ref.path, former=True) == [*inputs, *former]


def test_what_is_asked_for_as_before_or_was_never_made_is_left() -> None:
    ref = make("shared/update/1", "hospitals/a/cases/1")
    manifest = ref.folder / "manifest.json"
    before = (manifest.read_bytes(), manifest.stat().st_mtime_ns)
    name_inputs(ref.path, ["hospitals/a/cases/1"])
    assert (manifest.read_bytes(), manifest.stat().st_mtime_ns) == before
    for damaged in (b"", b"{}", b"[]", b'{"files": {}}', b"\xff"):
        manifest.write_bytes(damaged)
        name_inputs(ref.path, ["hospitals/a/cases/2"])
        assert manifest.read_bytes() == damaged
    name_inputs("shared/update/2", ["hospitals/a/cases/1"])
    assert not Path(ROOT, "shared/update/2").exists()
    assert inputs_of("shared/update/2") == inputs_of("shared/update/2", former=True) == []


def test_a_stage_found_for_the_same_content_names_the_folder_that_it_was_asked_with() -> None:
    """The one that it was made from may be gone by then; as `only` of its files too."""

    @stage("test-made", area="source")
    def made(folder: Folder, seed: int) -> None:
        folder.write("content", b"the same")
        folder.write("seed", str(seed).encode())

    @stage("test-taken", area="source")
    def taken(folder: Folder, of: Ref) -> None:
        folder.write("content", (of.folder / "content").read_bytes())

    def ask(of: Ref) -> str:
        """What Prefect does of a stage that it finds."""
        found = taken.cache_key_fn(None, {"of": of})  # type: ignore[misc, arg-type]
        assert isinstance(found, str)
        return found

    old, new = (made.fn(seed=seed) for seed in (0, 1))
    assert old.path != new.path and old.digest != new.digest
    result = taken.fn(of=old.only("content"))
    assert result.path.replace("/", "-") == ask(old.only("content")) == ask(new.only("content"))
    assert ask(old) != ask(new)
    assert inputs_of(result.path) == [new.path]
    shutil.rmtree(old.folder)
    assert list(walk([result])) == [new.path, result.path]


FOUND = """
import json, sys
from prefect import flow
from tasks.store import Ref
from tasks.store.leaving import OfPublicData
from tasks.store.provenance import walk
from tasks.store.stage import Folder, stage

ran = []

@stage("test-made", area="source")
def made(folder: Folder, seed: int) -> None:
    ran.append(f"made {seed}")
    folder.write("content", b"the same")

@stage("test-taken", area="shared", leaves=(), writes={"content": OfPublicData()})
def taken(folder: Folder, of: list[Ref]) -> None:
    ran.append("taken")
    folder.write("content", of[0].folder.joinpath("content").read_bytes())

@flow
def study(seed: int) -> list[str]:
    result = taken(of=[made(seed=seed)])
    return [made(seed=seed).path, result.path, *walk([result])]

print(json.dumps({"told": study(int(sys.argv[1])), "ran": ran}))
"""


@pytest.mark.slow
def test_a_later_run_walks_its_own_folders(server: Server, tmp_path: Path) -> None:
    """Through Prefect, in two processes; the first one's folder is removed in between."""

    def study(seed: int) -> dict[str, Any]:
        environment = server.environment | {"PYTHONPATH": os.pathsep.join(sys.path), "PREFECT_LOGGING_LEVEL": "ERROR"}
        program = tmp_path / "program.py"
        program.write_text(FOUND, encoding="utf-8")
        command = [sys.executable, str(program), str(seed)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    first = study(0)
    source, result, *walked = first["told"]
    assert first["ran"] == ["made 0", "taken"] and walked == [source, result]
    shutil.rmtree(ROOT / source)
    again = study(1)
    other, same, *walked = again["told"]
    assert again["ran"] == ["made 1"] and same == result and walked == [other, result]
    assert other != source and inputs_of(result, former=True) == [other, source]


def test_a_folder_that_is_gone_is_told() -> None:
    ref = make("shared/update/1", "hospitals/a/cases/1")
    with pytest.raises(StudyError, match=r"Expected the folder artifacts/hospitals/a/cases/1, .* found none: run"):
        walk([ref])


@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=10), st.data())
def test_a_walk_finds_all_that_results_were_made_from_each_after_its_inputs(
    graph: list[set[int]], data: st.DataObject
) -> None:
    """Against closure by repetition. Each folder is made from folders before it."""
    inputs = {number: sorted(each for each in given if each < number) for number, given in enumerate(graph)}
    refs = [make(f"source/s/{number}", *(f"source/s/{each}" for each in inputs[number])) for number in inputs]
    results = data.draw(st.lists(st.sampled_from(sorted(inputs)), min_size=1))
    expected = set(results)
    while more := {each for number in expected for each in inputs[number]} - expected:
        expected |= more
    found = walk([refs[number] for number in results])
    assert {int(path[9:]) for path in found} == expected
    order = [int(path[9:]) for path in found]
    assert all(order.index(each) < order.index(number) for number in order for each in inputs[number])
    assert all(manifest == find(path).manifest() for path, manifest in found.items())


def test_many_rounds_are_walked() -> None:
    refs = [make("shared/adapter/0")]
    for number in range(1, 1200):
        refs.append(make(f"shared/adapter/{number}", refs[-1].path))
    assert list(walk([refs[-1]])) == [ref.path for ref in refs]
