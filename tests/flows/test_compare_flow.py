"""The comparison as a user runs it: interrupted half-way, gone on with, and found whole the third time."""

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from command import COMMAND, Server, run

from flows import cells
from flows.forget import forget
from tasks.errors import StudyError
from tasks.records import Case, read_table
from tasks.settings import ModelSettings, Study
from tasks.settings.comparison import Cell, changed
from tasks.store import Ref

SETTINGS = (
    "study.dataset.images=8",
    "study.federation.rounds=1",
    "study.partition.hospitals=2",
    "study.evaluation.max_new_tokens=4",
    "study.evaluation.reliance=0",
    "study.evaluation.saliency=0",
    "study.evaluation.min_cell=1",
    "seeds=[0]",
    "configurations={fed+rag: {}, local: {federation.strategy: none, retrieval.k: 0}}",
    "name=small",
)
RUNNING = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}


def arguments(model: Path, *more: str) -> list[str]:
    settings = [word for each in (*SETTINGS, f"study.model.name={model}") for word in ("--set", each)]
    return [str(COMMAND), "compare", *settings, "--sweep", "retrieval.k=0,3", *more]


def count_logged(log: str, what: str) -> int:
    return len(re.findall(rf": {what} \d{{8}}-", log))


@dataclass(frozen=True)
class Interrupted:
    """A comparison that was killed half-way, and the same command again."""

    folder: Path
    kept: int
    """Studies that were finished when it was killed."""
    killed: list[str]
    """The flow runs that were at work."""
    gone_on: subprocess.CompletedProcess[str]


def running(server: Server) -> set[str]:
    """Ids of the flow runs that the server shows as running."""
    return {row["id"] for row in server.post("flow_runs/filter", RUNNING)}


@pytest.fixture(scope="module")
def interrupted(server: Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """Made once: what changes it copies the folder."""
    folder = tmp_path_factory.mktemp("compared")
    command, before = arguments(tiny_folder), running(server)  # that other tests have left
    process = subprocess.Popen(
        command, cwd=folder, env=server.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 240
    finished = "artifacts/source/cells/[!.]*/cell.json"  # of hidden folders, none is finished
    while not list(folder.glob(finished)):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.communicate()
    kept = len(list(folder.glob(finished)))
    assert not (folder / "artifacts/comparisons").exists()
    killed = sorted(running(server) - before)
    assert killed
    return Interrupted(folder, kept, killed, run(server, folder, command))


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_where_it_stopped(
    server: Server, tiny_folder: Path, interrupted: Interrupted
) -> None:
    folder, gone_on = interrupted.folder, interrupted.gone_on
    assert gone_on.returncode == 0, gone_on.stderr
    # Four cells on the published split, the sweep's k=3 being the configuration itself.
    assert count_logged(gone_on.stderr, "found") + count_logged(gone_on.stderr, "ran") == 4
    assert count_logged(gone_on.stderr, "found") == interrupted.kept + 1
    assert "the same cases as split none" in gone_on.stderr
    # Configurations differ in who holds and shows what, not in what the tower sees.
    assert len(list(folder.glob("artifacts/source/vision/*/manifest.json"))) == 1
    document = read(folder)
    again = run(server, folder, arguments(tiny_folder))
    assert (count_logged(again.stderr, "found"), count_logged(again.stderr, "ran")) == (4, 0)
    assert read(folder) == document
    says_what_it_holds(document, folder, again.stdout)
    keys = {row["key"] for row in server.post("artifacts/latest/filter", {})}
    assert {"comparison", "comparison-tables", "comparison-progress"} <= keys


@pytest.mark.slow
def test_what_ran_when_its_process_was_killed_is_not_shown_as_running(server: Server, interrupted: Interrupted) -> None:
    now = server.post("flow_runs/filter", {"flow_runs": {"id": {"any_": interrupted.killed}}})
    assert {row["state_name"] for row in now} == {"Crashed"}
    assert not server.shown_as_running(*interrupted.killed)


@pytest.mark.slow
def test_a_patient_who_withdrew_is_in_no_later_comparison(
    server: Server, tiny_folder: Path, interrupted: Interrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(interrupted.folder / "artifacts", tmp_path / "artifacts", symlinks=True)
    less = ("splits=[none]", "configurations={fed+rag: {}}", "study.partition.hospitals=2", "cost=false")
    command = [*arguments(tiny_folder)[:-2], *(word for each in less for word in ("--set", each))]
    first = run(server, tmp_path, command)
    assert (first.returncode, count_logged(first.stderr, "found"), count_logged(first.stderr, "ran")) == (0, 1, 0)
    monkeypatch.chdir(tmp_path)
    before, document = Path("artifacts/latest").resolve(), read(tmp_path)
    (folder,) = Path("artifacts/hospitals/hospital-1/cases").glob("[!.]*")
    tested = [case for case in read_table(folder / "cases.parquet", Case) if case.split == "test"]
    image = tested[0].image_id
    gone = sum(case.image_id == image for case in tested)
    forget("hospital-1", image)
    again = run(server, tmp_path, command)
    assert again.returncode == 0, again.stderr
    assert (count_logged(again.stderr, "found"), count_logged(again.stderr, "ran")) == (0, 1)
    assert Path("artifacts/latest").resolve() != before
    counts = [sum(each["n"] for each in answers(old)) for old in (document, read(tmp_path))]
    assert counts[0] - counts[1] == gone > 0


def answers(document: dict[str, Any]) -> list[dict[str, Any]]:
    """How many test cases the reference answered, closed and open."""
    wanted = ("closed_accuracy", "open_bleu")
    rows = [each for each in document["scores"] if each["configuration"] == "fed+rag" and each["group"] == "all"]
    return [each for each in rows if each["measure"] in wanted]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "artifacts/comparisons/small/comparison.json").read_text(encoding="utf-8"))


def says_what_it_holds(document: dict[str, Any], folder: Path, printed: str) -> None:
    rows = [each["name"] for each in document["configurations"]]
    assert rows == ["fed+rag", "local", "base", "majority", "question_only", "image_and_question", "copy_nearest"]
    assert [each["same_as"] for each in document["splits"]] == [None, "none"]
    runs = {(each["part"], each["name"]): folder / "artifacts/runs" / each["run"] for each in document["runs"]}
    assert set(runs) == {
        ("configurations", "fed+rag"), ("configurations", "local"), ("retrieval.k", "0"), ("retrieval.k", "3")
    }  # fmt: skip
    assert runs["retrieval.k", "3"] == runs["configurations", "fed+rag"]
    assert (folder / "artifacts/latest").resolve() == runs["configurations", "fed+rag"].resolve()
    # Scores over all questions are those of the studies themselves.
    for name in ("fed+rag", "local"):
        study_results = json.loads((runs["configurations", name] / "results.json").read_text(encoding="utf-8"))
        (trained,) = study_results["configurations"].values()
        for measure, kind, field in (("closed_accuracy", "closed", "accuracy"), ("open_bleu", "open", "bleu")):
            (entry,) = (
                each
                for each in document["scores"]
                if (each["configuration"], each["measure"], each["group"]) == (name, measure, "all")
            )
            assert entry["score"] == pytest.approx(trained[kind][field])
            assert entry["n"] == trained[kind]["n"]
    cost = {each["configuration"]: each for each in document["cost"]}
    assert cost["local"]["bytes_up"] == cost["local"]["bytes_down"] == 0 < cost["fed+rag"]["bytes_up"]
    assert all(each["peak_memory_bytes"] > 10**8 and each["seconds_per_round"] > 0 for each in cost.values())
    assert "local" in printed
    for name in ("comparison.md", "comparison.tex", "comparison.html"):
        assert (folder / "artifacts/comparisons/small" / name).stat().st_size > 1000


@pytest.fixture
def asks_for_a_preset() -> list[Cell]:
    """One study on a preset whose weights are absent, at a revision of its own."""
    study = Study(model=ModelSettings(name="llava-med-7b", revision="main"))
    return [Cell("configurations", "med", "none", 0, study)]


def test_a_twin_has_no_revision(asks_for_a_preset: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, "make_twin", lambda of, seed: Ref(path="shared/twin/0", digest=of))
    ((cell,), twins) = cells.with_stand_ins(asks_for_a_preset)
    assert twins == {"llava-med-7b": "artifacts/shared/twin/0"}
    assert (cell.study.model.name, cell.study.model.revision) == (twins["llava-med-7b"], None)


@pytest.mark.parametrize(("dataset", "composed"), [("slake", True), ("slake", False), ("phantom", True)])
def test_on_real_images_smol_clip_stands_in_if_it_was_composed(
    dataset: Literal["slake", "phantom"],
    composed: bool,
    asks_for_a_preset: list[Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, "make_twin", lambda of, seed: Ref(path="shared/twin/0", digest=of))
    monkeypatch.setattr(cells, "_is_there", lambda name, revision=None: name == "smol-clip" and composed)
    asked = replace(asks_for_a_preset[0], study=changed(asks_for_a_preset[0].study, {"dataset.name": dataset}))
    ((cell,), stand_ins) = cells.with_stand_ins([asked])
    expected = "smol-clip" if dataset == "slake" and composed else "artifacts/shared/twin/0"
    assert stand_ins == {"llava-med-7b": expected}
    assert (cell.study.model.name, cell.study.lora.projector) == (expected, expected == "smol-clip")


def test_a_folder_named_like_a_preset_has_no_twin(
    asks_for_a_preset: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llava-med-7b").mkdir()
    (tmp_path / "llava-med-7b/config.json").write_text("{}")
    with pytest.raises(StudyError, match=r"which is short for .* and a folder here: set it to ./llava-med-7b for"):
        cells.with_stand_ins(asks_for_a_preset)


@pytest.mark.slow
def test_a_preset_without_weights_has_its_twin_and_any_other_is_refused(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    other = "configurations={fed+rag: {}, other: {model.name: paligemma-3b}}"
    refused = run(server, tmp_path, arguments(tiny_folder, "--set", other))
    assert refused.returncode == 1
    assert "paligemma-3b" in refused.stderr
    assert not list(tmp_path.glob("artifacts/runs/*"))
    twin = "configurations={fed+rag: {retrieval.k: 0}, med: {model.name: llava-med-7b, retrieval.k: 0}}"
    less = [word for each in (twin, "splits=[none]", "cost=false") for word in ("--set", each)]
    done = run(server, tmp_path, [*arguments(tiny_folder)[:-2], *less])
    assert done.returncode == 0, done.stderr
    labels = {each["name"]: each["label"] for each in read(tmp_path)["configurations"]}
    assert labels["med"] == "med (twin of llava-med-7b: random weights)"


@pytest.mark.slow
def test_a_study_with_personal_adapters_stands_in_a_comparison_by_the_adapter_for_all(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    tuned = ("splits=[none]", "cost=false", "configurations={fed+rag: {federation.personal: fine-tune}}")
    command = [*arguments(tiny_folder)[:-2], *(word for each in tuned for word in ("--set", each))]
    done = run(server, tmp_path, command)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "artifacts/latest/results.json").read_text())["configurations"]
    assert list(results) == ["fed+rag", "fed+rag+personal"]
    scores = {
        each["measure"]: each["score"]
        for each in read(tmp_path)["scores"]
        if (each["configuration"], each["group"]) == ("fed+rag", "all")
    }
    assert scores["closed_accuracy"] == pytest.approx(results["fed+rag"]["closed"]["accuracy"])
    assert scores["open_exact_match"] == pytest.approx(results["fed+rag"]["open"]["exact_match"])
