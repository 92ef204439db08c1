"""Studies with an encoder and a gated fusion through the command: what is made, what is rebuilt, what is forgotten."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import Server, fed_rag, seconds_in
from test_encoders import make_clip
from test_forget import HOSPITAL, one, traces, tree, verify_all

from flows.forget import forget
from tasks.records import Case, Neighbour, read_table
from tasks.records.federation import LibrarySources
from tasks.retrieve.fusion import Fused
from tasks.retrieve.hospital_data import open_hospital_data
from tasks.retrieve.index import FINE, INDEX
from tasks.retrieve.library import read_library
from tasks.retrieve.retriever_files import open_library_encoder
from tasks.retrieve.rows import Rows
from tasks.retrieve.step import build_hospital_library
from tasks.settings import LibrarySettings
from tasks.store import find

SETTINGS = (
    "dataset.images=8",
    "partition.hospitals=2",
    "federation.rounds=1",
    "evaluation.max_new_tokens=1",
    "evaluation.reliance=0",
    "evaluation.saliency=0",
    "retrieval.encoder=clip",
    "retrieval.text=encoder",
    "retrieval.fusion=gated",
    "retrieval.fusion_rounds=2",
    "retrieval.index=ivf",
)
SOURCES = ("cases", "features", "encoded")


def run(server: Server, folder: Path, model: Path, encoder: Path) -> None:
    chosen = (f"model.name={model}", f"retrieval.encoder_model={encoder}", *SETTINGS)
    fed_rag(folder, "run", *(word for each in chosen for word in ("--set", each)), server=server)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights."""
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def finished(server: Server, tiny_folder: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study; tests copy it."""
    folder = tmp_path_factory.mktemp("study")
    run(server, folder, tiny_folder, encoder)
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test runs."""
    shutil.copytree(finished / "artifacts", tmp_path / "artifacts", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "artifacts"


def rows_of(place: Path, cases: list[Case]) -> Rows:
    """The rows of some cases of a hospital, by its library's own encoder."""
    made = {stage: find(f"hospitals/{place.name}/{stage}/{one(place, stage).name}") for stage in SOURCES}
    data = open_hospital_data(LibrarySources(name=place.name, **made))
    fused = open_library_encoder(one(place, "library"))
    assert isinstance(fused, Fused)
    return fused.encode(*data.inputs.of(cases))


@pytest.mark.slow
def test_a_study_with_an_encoder_and_a_gated_fusion(study: Path) -> None:
    results = json.loads((study / "latest/results.json").read_text())
    assert {"encoded", "fusion", "fusion-update", "library", "features"} <= results["timings_s"].keys()
    seconds = [
        json.loads((path / "manifest.json").read_text())["seconds"] for path in study.glob("hospitals/*/encoded/[!.]*")
    ]
    assert len(seconds) == 2
    assert results["timings_s"]["encoded"] == pytest.approx(sum(seconds), abs=0.01)
    assert results["timings_s"] == pytest.approx(seconds_in(study), abs=0.01)

    shared = {path.name for path in study.glob("shared/fusion*/*/*")} - {"manifest.json"}
    assert shared == {"fusion.safetensors", "update.json", "round.json"}
    for place in study.glob("hospitals/*"):
        cases = read_table(one(place, "cases") / "cases.parquet", Case)
        assert not traces(study / "shared/fusion", {case.id for case in cases} | {case.image_id for case in cases})
        library = one(place, "library")
        assert (library / INDEX).read_bytes()[:2] == b"Iw"
        training = [case for case in cases if case.split == "train"]
        queries = [case for case in cases if case.split != "validation"]
        near = rows_of(place, queries) @ rows_of(place, training).T
        hidden = read_library(library).copies
        found: dict[str, list[Neighbour]] = {case.id: [] for case in queries}
        for row in read_table(library / "neighbours.parquet", Neighbour):
            found[row.case_id].append(row)
        for case, similar in zip(queries, near, strict=True):
            barred = {case.image_id, *hidden.get(case.image_id, ())}
            allowed = [n for n, other in enumerate(training) if other.image_id not in barred]
            best = sorted(similar[allowed].tolist(), reverse=True)[:10]
            assert [each.similarity for each in found[case.id]] == pytest.approx(best, abs=2e-3)


@pytest.mark.slow
def test_a_damaged_index_is_noticed_and_rebuilt_by_the_next_run(
    server: Server, study: Path, tiny_folder: Path, encoder: Path
) -> None:
    before = tree(study / "hospitals")
    index = one(study / "hospitals" / HOSPITAL, "library") / INDEX
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    run(server, study.parent, tiny_folder, encoder)
    verify_all(study)
    after = tree(study / "hospitals")
    assert index.read_bytes() == before[index.relative_to(study / "hospitals").as_posix()]
    changed = {path for path in before if path not in after or before[path] != after[path]}
    assert {Path(path).parts[:2] for path in changed} <= {(HOSPITAL, "library"), (HOSPITAL, "report.html")} | {
        (each, "report.html") for each in ("hospital-1", "hospital-2")
    }
    assert {Path(path).name for path in changed} <= {"manifest.json", "report.html"}  # its time and memory


@pytest.mark.slow
def test_a_patient_is_forgotten_by_indexes_of_every_kind(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = study / "hospitals" / HOSPITAL
    cases = read_table(one(place, "cases") / "cases.parquet", Case)
    training = [case for case in cases if case.split == "train"]
    rows = rows_of(place, training)
    made = find(one(place, "library").relative_to(study).as_posix())
    inputs = {path.split("/")[-2]: find(path) for path in made.manifest()["inputs"]}
    sources = LibrarySources(name=HOSPITAL, **{stage: inputs[stage] for stage in SOURCES})
    common = {"hospital": sources, "fusion": inputs["fusion"]}
    libraries = [
        build_hospital_library.fn(**common, settings=LibrarySettings(depth=5, index=kind)) for kind in ("flat", "hnsw")
    ]
    monkeypatch.setattr("tasks.retrieve.index_kinds.ROOM", 0)
    libraries.append(build_hospital_library.fn(**common, settings=LibrarySettings(depth=6, index="ivf")))
    assert (libraries[-1].folder / FINE).is_file()
    folders = [made.folder, *(each.folder for each in libraries)]
    assert len(set(folders)) == 4

    gone = training[0].image_id
    names = {gone, *(case.id for case in cases if case.image_id == gone)}
    assert all(traces(folder, names) for folder in folders)
    done = forget(HOSPITAL, gone)
    assert not traces(place, names)
    verify_all(study)
    fusions = {path.relative_to(study).as_posix() for path in (study / "shared").glob("fusion-update/[!.]*")}
    assert {path for path in done.adapters if "/fusion" in path} >= {
        path for path in fusions if json.loads((study / path / "update.json").read_text())["hospital"] == HOSPITAL
    }
    left = [number for number, case in enumerate(training) if case.image_id != gone]
    for folder in folders:
        library = read_library(folder)
        assert len(library.index) == len(library.entries) == len(left)
        assert library.entries.table["case_id"].to_pylist() == [training[number].id for number in left]
        queries = [replace(case, image_id="other") for case in training[:5]]
        for row, found in zip(rows, library.search(rows[:5], queries, 10), strict=False):
            best = np.sort(rows[left] @ row)[::-1][:10]
            assert [each.similarity for each in found] == pytest.approx(best.tolist(), abs=2e-3)
