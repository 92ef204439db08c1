"""The wheel, installed where there is no checkout: it runs a study in an empty folder and answers a question."""

import ast
import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from command import TOP, shell
from ingest_samples import picture
from test_layers import SOURCES
from test_lock import PROJECT

SMALL = (
    "dataset.images=12",
    "federation.rounds=1",
    "partition.hospitals=2",
    "evaluation.max_new_tokens=4",
    "evaluation.reliance=0",
    "evaluation.examined=0",
    "evaluation.saliency=0",
)
MOST_BYTES = 20 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the locked hatchling, without anything from the network."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: make .venv/installed")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(command, cwd=TOP, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fed-rag` of an environment with the wheel, which finds the libraries where this process has them.

    The editable install of the checkout is not among them: files of kind `.pth` count only in an environment's own
    folder.
    """
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return place / "bin/fed-rag"


def said(command: Path, folder: Path, *words: str) -> str:
    environment = {name: value for name, value in shell().items() if name != "PYTHONPATH"}
    environment |= {"PREFECT_HOME": str(folder.parent / "prefect"), "XDG_CACHE_HOME": str(folder.parent / "cache")}
    done = subprocess.run([command, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_has_all_that_is_shipped_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(["git", "ls-files", "data", "flows", "tasks"], cwd=TOP, capture_output=True, text=True)
    shipped = set(tracked.stdout.split("\n")) - {""}
    if shipped:  # in a git checkout
        assert {name for name in names if ".dist-info/" not in name} == shipped
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"data", "flows", "tasks"}
    assert wheel.stat().st_size < MOST_BYTES


@pytest.mark.slow
def test_an_installed_wheel_runs_a_study_in_an_empty_folder(command: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    where = "import tasks.store.shipped as s; print(s.__file__, s.COMPOSED, sep='\\n')"
    python = command.with_name("python")
    file, composed = said(python, folder, "-c", where).splitlines()
    assert Path(file).is_relative_to(command.parents[1])  # the wheel, not the checkout
    assert composed == str(tmp_path / "cache/fed-rag")
    assert said(command, folder, "--version").strip() == f"fed-rag {PROJECT['version']}"
    said(command, folder, "run", *(word for each in SMALL for word in ("--set", each)))
    results = json.loads((folder / "artifacts/latest/results.json").read_text(encoding="utf-8"))
    assert results["settings"]["dataset"]["images"] == 12 and results["configurations"]
    assert {path.name for path in folder.iterdir()} == {"artifacts"}
    (tmp_path / "asked.png").write_bytes(picture())
    assert said(command, folder, "ask", str(tmp_path / "asked.png"), "Is there a mass?").strip()
    assert (folder / "artifacts/latest/report.html").is_file()


@pytest.mark.slow
def test_recipes_and_composed_bases_are_found_without_a_checkout(command: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    load = "from flows.cli.settings_file import *; print(load_recipe(Path('data/recipes/llama-clip.yaml')).name)"
    assert said(command.with_name("python"), folder, "-c", load).strip() == "llama-clip"
    assert "vqa-rad" in said(command, folder, "run", "--help")  # a named study


def test_shipped_files_are_found_by_one_module() -> None:
    """Elsewhere a module knows the files beside it, and not how deep it lies."""
    climbing = {
        path
        for path, source in SOURCES.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr in ("parent", "parents")
        and "__file__" in ast.unparse(node.value)
    }
    assert climbing == {"tasks/store/shipped.py"}
