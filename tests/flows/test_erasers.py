"""Erasers: each stage that keeps data of cases at a hospital has one, and whatever learned from a case is told."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_layers import SOURCES

from flows.forget import forget
from flows.withdrawn import ERASERS
from tasks.records import Case, Image, ImagePair, write_table
from tasks.store import Ref, writing
from tasks.store.stage import Folder, stage

CASES = [Case(f"c{n}", f"i{n}", "Mass?", "yes", "closed", "train", "own", "en") for n in range(2)]


def declared() -> Iterator[tuple[str, str, str]]:
    """Package, area and name of each stage, read from its decorator."""
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and path.endswith("/step.py"):
                for each in node.decorator_list:
                    assert isinstance(each, ast.Call) and ast.unparse(each.func) == "stage"
                    (area,) = (ast.literal_eval(word.value) for word in each.keywords if word.arg == "area")
                    yield path.split("/")[1], area, ast.literal_eval(each.args[0])


def test_every_stage_of_a_hospital_has_an_eraser_in_its_package() -> None:
    owned = {(package, name) for package, area, name in declared() if area.startswith("hospitals/{")}
    assert {name for _, name in owned} == ERASERS.keys()
    assert ("partition", "cases") in owned and ("answer", "reliance") in owned
    for package, name in owned:
        eraser = ERASERS[name]
        assert eraser is None or eraser.__module__ == f"tasks.{package}.erase"
    others = {name for _, area, name in declared() if not area.startswith("hospitals/{")}
    assert not others & ERASERS.keys()


def test_to_know_the_erasers_takes_no_large_library() -> None:
    large = ("torch", "transformers", "peft", "faiss", "prefect")
    program = f"import sys, flows.forget; print([each for each in {large} if each in sys.modules])"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


class Whatever:
    """What is in these files is nothing to these tests."""

    def undeclared(self, path: Path) -> Iterator[str]:
        """Nothing."""
        return iter(())


FILES = {name: Whatever() for name in ("control.bin", "adapter.bin", "count.safetensors")}


@stage("test-control", area="shared", title="control {hospital}", leaves=("tensors", "counts"), writes=FILES)
def make_control(folder: Folder, hospital: str, cases: Ref, control: Ref | None = None) -> None:
    """As a control variate of SCAFFOLD."""
    folder.write("control.bin", b"0")


@stage("test-mean", area="shared", leaves=("tensors",), writes=FILES)
def mean_control(folder: Folder, controls: list[Ref]) -> None:
    """What goes on from the hospitals' tensors."""
    folder.write("control.bin", b"0")


@stage("test-library", area="hospitals/{hospital}")
def make_library(folder: Folder, hospital: str, cases: Ref) -> None:
    """What a hospital makes of its cases, and keeps."""
    folder.write("rows.bin", b"0")


@stage("test-personal", area="shared", leaves=("tensors",), writes=FILES)
def personalise(folder: Folder, library: Ref) -> None:
    """Learned from what was made of cases."""
    folder.write("adapter.bin", b"0")


@stage("test-count", area="shared", leaves=("counts",), writes=FILES)
def count(folder: Folder, cases: Ref, control: Ref) -> None:
    """No tensors leave, though the name of a file looks like it."""
    folder.write("count.safetensors", b"0")


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Ref]:
    """Two hospitals' cases."""
    monkeypatch.chdir(tmp_path)
    return {hospital: cases_at(hospital, "0") for hospital in ("a", "b")}


def cases_at(hospital: str, key: str) -> Ref:
    """A folder of cases, without their pixels."""
    tables: dict[str, tuple[type, list[Any]]] = {
        "cases": (Case, CASES),
        "images": (Image, []),
        "copies": (ImagePair, []),
    }
    with writing(f"hospitals/{hospital}", "cases", key) as folder:
        for name, (record, rows) in tables.items():
            with folder.open(f"{name}.parquet") as sink:
                write_table(sink, record, rows)
    return folder.ref


def test_a_stage_that_nobody_listed_is_found(held: dict[str, Ref]) -> None:
    first = {hospital: make_control.fn(hospital=hospital, cases=cases) for hospital, cases in held.items()}
    mean = mean_control.fn(controls=list(first.values()))
    second = make_control.fn(hospital="b", cases=held["b"], control=mean)
    library = make_library.fn(hospital="a", cases=held["a"])
    personal = personalise.fn(library=library)
    counted = count.fn(cases=held["a"], control=first["a"])
    adapters = forget("a", "i0", dry=True).adapters
    assert set(adapters) == {first["a"].path, mean.path, second.path, personal.path}
    assert counted.path not in adapters and first["b"].path not in adapters


def test_a_folder_of_a_version_that_declared_nothing_is_recognised_by_its_tensors(held: dict[str, Ref]) -> None:
    for name, file in (("update", "adapter_model.safetensors"), ("scores", "scores.json")):
        with writing("shared", name, "0") as folder:
            folder.inputs = [held["a"].path]
            folder.write(file, b"0")
    assert forget("a", "i0", dry=True).adapters == ("shared/update/0",)


def test_what_was_reused_for_the_same_cases_is_found_whichever_folder_of_them_is_left(
    held: dict[str, Ref],
) -> None:
    """A control that was made from one folder of cases, and found for another with the same content."""
    first, again = held["a"], cases_at("a", "again")
    control = make_control.fn(hospital="a", cases=first)
    make_control.cache_key_fn(None, {"hospital": "a", "cases": again})  # type: ignore[misc, arg-type]
    for gone, left in ((first, again), (again, first)):
        hidden = gone.folder.rename(gone.folder.with_name(".hidden"))
        assert (left.folder / "cases.parquet").exists() and not gone.folder.exists()
        assert forget("a", "i0", dry=True).adapters == (control.path,)
        hidden.rename(gone.folder)
