"""Forgetting a patient: what is removed where, what stays, and that nothing brings the patient back."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import COMMAND, Server, fed_rag, seconds_in, shell
from interrupted import checkpoint
from safetensors import safe_open

from flows.forget import forget
from tasks.cases.patients import patient_digest
from tasks.cases.withdrawn import all_digests, forgotten_at, is_forgotten, name_digest
from tasks.engine.vision import FEATURES, Features, load_features
from tasks.errors import StudyError
from tasks.records import Case, FailureModes, Finding, Image, ImagePair, Neighbour, Prediction, read_table, write_table
from tasks.records.copied import COPIED, read_copied
from tasks.retrieve.encoded import ENCODED, Encoded, load_encoded
from tasks.retrieve.library import read_library
from tasks.store import find, writing

HOSPITAL = "hospital-1"
SETTINGS = ("dataset.images=12", "federation.rounds=2", "partition.hospitals=2", "evaluation.coverage=0.9")
FEW = ("evaluation.max_new_tokens=4", "evaluation.reliance=16", "evaluation.examined=3", "evaluation.saliency=1")
ARGUMENTS = [word for each in (*SETTINGS, *FEW) for word in ("--set", each)]


@pytest.fixture(scope="module")
def finished(server: Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study; tests copy it."""
    folder = tmp_path_factory.mktemp("forget")
    fed_rag(folder, "run", "--set", f"model.name={tiny_folder}", *ARGUMENTS, server=server)
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test runs."""
    shutil.copytree(finished / "artifacts", tmp_path / "artifacts", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "artifacts"


def names_in(path: Path) -> set[str]:
    """Every text of a table, a JSON file or a safetensors index."""
    if path.suffix == ".parquet":
        return set(texts(pq.read_table(path).to_pylist()))
    if path.suffix == ".json":
        return set(texts(json.loads(path.read_text())))
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as file:
            return set(texts(json.loads((file.metadata() or {}).get("index", "[]"))))
    return set()


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in (*value, *value.values()) for text in texts(each))
    elif isinstance(value, list):
        yield from (text for each in value for text in texts(each))


def traces(place: Path, names: set[str]) -> list[str]:
    files = (path for path in place.rglob("*") if path.is_file())
    return [path.relative_to(place).as_posix() for path in files if names & names_in(path)]


def tree(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def one(place: Path, stage: str) -> Path:
    (folder,) = (path for path in (place / stage).iterdir() if path.is_dir())
    return folder


def retrieved_patient(place: Path) -> tuple[str, list[Case]]:
    """A training image (nobody's, as far as is stated) that was shown with other images' questions, and its cases."""
    cases = read_table(one(place, "cases") / "cases.parquet", Case)
    retrieved = [
        {
            name
            for path in (place / stage).glob("*/*.parquet")
            for row in read_table(path, Prediction)
            for name in row.neighbours
        }
        for stage in ("predictions", "baselines", "reliance")
    ]
    images = [{case.image_id for case in cases if case.id in names} for names in retrieved]
    image = min(set.intersection(*images))
    return image, [case for case in cases if case.image_id == image]


def verify_all(artifacts: Path) -> None:
    for path in artifacts.glob("*/**/manifest.json"):
        find(path.parent.relative_to(artifacts).as_posix()).verified()


@pytest.mark.slow
def test_nothing_of_a_forgotten_patient_is_left_and_others_stay(study: Path) -> None:
    place = study / "hospitals" / HOSPITAL
    image, patient_cases = retrieved_patient(place)
    names = {image, *(case.id for case in patient_cases)}
    held = traces(place, names)
    stages = {"cases", "features", "library", "predictions", "baselines", "reliance", "calibration"}
    assert {path.split("/")[0] for path in held} >= stages - {"calibration"}  # where it may be shown to none
    before, others = tree(study), read_table(one(place, "cases") / "cases.parquet", Case)

    done = forget(HOSPITAL, image)

    assert not traces(place, names) and not (place / "report.html").exists() and not done.again
    assert not [path for path in place.rglob(".*") if path.is_dir()]
    verify_all(study)
    after = tree(study)
    apart = {path for path in before if not path.startswith((f"hospitals/{HOSPITAL}/", ".records/"))}
    assert all(after[path] == before[path] for path in apart)
    removed = {Path(path).relative_to(f"hospitals/{HOSPITAL}").parts[0] for path, _ in done.removed}
    assert removed == {"report.html", *(path.split("/")[0] for path in held)}
    kept = read_table(one(place, "cases") / "cases.parquet", Case)
    assert kept == [case for case in others if case.image_id != image]
    index = faiss.read_index(str(one(place, "library") / "index.faiss"))
    entries = pq.read_table(one(place, "library") / "entries.parquet")
    assert faiss.vector_to_array(index.id_map).tolist() == entries["number"].to_pylist()
    assert entries["case_id"].to_pylist() == [case.id for case in kept if case.split == "train"]
    ranks: dict[str, list[int]] = {}
    for row in read_table(one(place, "library") / "neighbours.parquet", Neighbour):
        ranks.setdefault(row.case_id, []).append(row.rank)
    assert all(found == list(range(len(found))) for found in ranks.values())


@pytest.mark.slow
def test_times_are_of_all_that_a_run_was_made_from(study: Path) -> None:
    """Of abstention and calibration too; in a store where nothing was before."""
    results = json.loads((study / "latest/results.json").read_text())
    assert {"calibration", "abstention", "reliance"} <= results["timings_s"].keys()
    assert results["timings_s"] == pytest.approx(seconds_in(study), abs=0.01)


@pytest.mark.slow
def test_the_library_answers_as_one_built_without_the_patient(study: Path) -> None:
    place = study / "hospitals" / HOSPITAL
    image, patient_cases = retrieved_patient(place)
    gone = {case.id for case in patient_cases}
    old = read_library(one(place, "library"), mapped=False)
    ids, rows = old.entries.table["case_id"].to_pylist(), old.index.main.index.reconstruct_n(0, len(old.index))
    forget(HOSPITAL, image)
    kept = [number for number, name in enumerate(ids) if name not in gone]
    library = read_library(one(place, "library"))
    cases = [case for case in read_table(one(place, "cases") / "cases.parquet", Case) if case.id in ids]
    places = {name: number for number, name in enumerate(ids)}
    images = {case.id: case.image_id for case in cases} | dict.fromkeys(gone, image)
    queries = np.stack([rows[places[case.id]] for case in cases])
    for case, row, found in zip(cases, queries, library.search(queries, cases, 5), strict=True):
        hidden = {case.image_id, *old.copies.get(case.image_id, ())}
        expected = sorted(float(-(rows[n] @ row)) for n in kept if images[ids[n]] not in hidden)[:5]
        assert not gone & {neighbour.neighbour_id for neighbour in found}
        assert np.allclose([neighbour.similarity for neighbour in found], -np.array(expected), atol=1e-3)


@pytest.mark.slow
def test_the_adapters_trained_on_the_patient_are_listed(study: Path) -> None:
    place = study / "hospitals" / HOSPITAL
    image, _ = retrieved_patient(place)
    expected_of: dict[str, set[str]] = {"round": set(), "update": set()}
    for path in (study / "shared/update").glob("*/update.json"):
        row = json.loads(path.read_text())
        if row["hospital"] == HOSPITAL or row["round"] == 2:  # round 2 goes on from the average of round 1
            expected_of["update"].add(path.parent.relative_to(study).as_posix())
    averaged = {path.parent.relative_to(study).as_posix() for path in (study / "shared/adapter").glob("*/round.json")}
    together = {path.relative_to(study).as_posix() for path in (study / "shared").glob("updates/[!.]*")}
    done = forget(HOSPITAL, image)
    listed = set(done.adapters)
    assert len(averaged) == 2 and listed >= averaged
    initial = {path.relative_to(study).as_posix() for path in (study / "shared/adapter").glob("[!.]*")} - averaged
    assert not listed & initial
    expected = averaged | together
    if not together:
        expected |= expected_of["update"]
    else:  # trained in one pass over the base: the other hospital's first update lay beside it
        expected |= {path.relative_to(study).as_posix() for path in (study / "shared/update").glob("[!.]*")}
    assert listed == expected
    assert forgotten_at(place)[0]["adapters"] == sorted(expected)


@pytest.mark.slow
def test_a_test_patient_has_no_adapters(study: Path) -> None:
    cases = read_table(one(study / "hospitals" / HOSPITAL, "cases") / "cases.parquet", Case)
    image = next(case.image_id for case in cases if case.split == "test")
    assert forget(HOSPITAL, image).adapters == ()
    assert not traces(study / "hospitals" / HOSPITAL, {image})


KILLED = """
import os, sys, tasks.store.folders as store
from flows.forget import forget
calls, remove = [], store.shutil.rmtree
def killed(*args, **named):
    calls.append(1)
    if len(calls) == int(sys.argv[3]):
        os._exit(9)
    remove(*args, **named)
store.shutil.rmtree = killed
forget(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_after_a_kill_the_same_call_removes_what_is_left(study: Path, finished: Path) -> None:
    place = study / "hospitals" / HOSPITAL
    image, patient_cases = retrieved_patient(place)
    names = {image, *(case.id for case in patient_cases)}
    folders = len([path for path in place.glob("*/[!.]*") if path.is_dir()])
    for point in (2, folders):  # at the last one, the new cases are in place and the old ones not yet removed
        shutil.rmtree(study)
        shutil.copytree(finished / "artifacts", study, symlinks=True)
        killed = subprocess.run([sys.executable, "-c", KILLED, HOSPITAL, image, str(point)], cwd=study.parent)
        assert killed.returncode == 9 and traces(place, names)
        assert forgotten_at(place)[0]["digest"] == name_digest(image)
        assert forget(HOSPITAL, image).again
        assert not traces(place, names)
        verify_all(study)
    once = tree(study)
    done = forget(HOSPITAL, image)
    assert done.again and not done.removed and done.adapters and tree(study) == once


@pytest.mark.slow
def test_what_a_training_that_was_broken_off_had_learned_is_removed(study: Path) -> None:
    """At this hospital alone, and also where the patient was forgotten before."""
    place = study / "hospitals" / HOSPITAL
    image, _ = retrieved_patient(place)
    own, others = (checkpoint(area=f"hospitals/{name}") for name in (HOSPITAL, "hospital-2"))
    for _ in range(2):
        for kept in (own, others):
            kept.save(lambda folder: folder.joinpath("data.bin").write_bytes(b"0") and None)
        removed = (own.path, "the checkpoint of a training, which begins anew")
        assert forget(HOSPITAL, image, dry=True).removed.count(removed) == 1
        assert (study / own.path).exists()
        assert forget(HOSPITAL, image).removed.count(removed) == 1
        assert not (study / own.path).exists() and (study / others.path).exists()


@pytest.mark.slow
def test_a_later_run_does_not_bring_the_patient_back(server: Server, study: Path, tiny_folder: Path) -> None:
    place = study / "hospitals" / HOSPITAL
    image, patient_cases = retrieved_patient(place)
    forget(HOSPITAL, image)
    fed_rag(study.parent, "run", "--set", f"model.name={tiny_folder}", *ARGUMENTS, server=server)
    assert not traces(study / "hospitals", {image, *(case.id for case in patient_cases)})
    assert (place / "report.html").exists()
    verify_all(study)


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hospital with the cases of patients who have two images each, and answers to their questions."""
    monkeypatch.chdir(tmp_path)
    cases = [
        Case(f"c{n}", f"i{n}", "Mass?", "yes", "closed", "test", "own", "en", group=f"patient {n // 2}")
        for n in range(6)
    ]
    for hospital in ("a", "b"):
        with writing(f"hospitals/{hospital}", "cases", "0") as folder:
            with folder.open("cases.parquet") as sink:
                write_table(sink, Case, cases)
            with folder.open("images.parquet") as sink:
                write_table(sink, Image, [Image(case.image_id, b"bytes", 1, 1) for case in cases])
            with folder.open("findings.parquet") as sink:
                write_table(sink, Finding, [Finding(f"i{n}", "mass", "upper left", "small", b"mask") for n in (1, 3)])
            with folder.open("copies.parquet") as sink:
                write_table(sink, ImagePair, [ImagePair("i0", "i5", "identical_bytes", 1.0)])
            folder.write_json(COPIED, ["i0", "i5"])
    answers = [Prediction("fed", case.id, "a", "closed", "Mass?", "yes", "no", ("c0", "c4")) for case in cases]
    with writing("hospitals/a", "predictions", "0") as folder:
        folder.inputs = ["hospitals/a/cases/0"]
        with folder.open("predictions.parquet") as sink:
            copied = [replace(answers[2], configuration="copy_nearest"), replace(answers[3], neighbours=("c5",))]
            write_table(sink, Prediction, [*answers, *copied])
    with writing("hospitals/a", "failures", "0") as folder:
        folder.inputs = ["hospitals/a/cases/0"]
        with folder.open("failures.parquet") as sink:
            write_table(sink, FailureModes, [FailureModes(case.id, ("ignores_image",), ()) for case in cases])
    with writing("hospitals/a", "made", "0") as folder:
        folder.write("of.json", b'"c0"')
    return tmp_path / "artifacts"


def test_all_images_of_a_patient_are_forgotten(ward: Path) -> None:
    other = tree(ward / "hospitals/b")
    done = forget("a", "patient 0")
    place = ward / "hospitals/a"
    assert not traces(place, {"c0", "c1", "i0", "i1", "patient 0"})
    assert read_copied(place / "cases/0") == {"i5"}
    rows = read_table(place / "predictions/0/predictions.parquet", Prediction)
    assert [(row.case_id, row.neighbours) for row in rows] == [
        *((f"c{n}", ("c4",)) for n in range(2, 6)),
        ("c3", ("c5",)),  # the answer copied from c0 went with it
    ]
    assert dict(done.removed)["hospitals/a/cases/0"] == "cases 2, images 2, masks of findings 1, pairs of copies 1"
    failing = read_table(place / "failures/0/failures.parquet", FailureModes)
    assert [row.case_id for row in failing] == ["c2", "c3", "c4", "c5"]
    assert dict(done.removed)["hospitals/a/made/0"] == "all of it"  # of a stage that is not known
    assert done.elsewhere == ("b",) and tree(ward / "hospitals/b") == other


@pytest.mark.parametrize("own_images", [True, False])
def test_rows_of_texts_stay_where_another_case_has_the_text(ward: Path, own_images: bool) -> None:
    (path,) = (ward / "hospitals/a/cases").glob("0/cases.parquet")
    cases = [
        replace(case, split="train", question=f"Mass {min(n, 1)}?", answer=f"Found {n}")
        for n, case in enumerate(read_table(path, Case))
    ]
    with writing("hospitals/c", "cases", "0") as folder:
        for name in ("images.parquet", "copies.parquet"):
            folder.write(name, path.with_name(name).read_bytes())
        with folder.open("cases.parquet") as sink:
            write_table(sink, Case, cases)
    said = ["Mass 0?", "Mass 1?", *(f"found {n}" for n in range(6))]
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    names = [case.image_id for case in cases] if own_images else []
    whole = Encoded(
        rows[: len(names)], rows, {name: n for n, name in enumerate(names)}, {t: n for n, t in enumerate(said)}
    )
    with writing("hospitals/c", "encoded", "0") as folder:
        folder.inputs = ["hospitals/c/cases/0"]
        folder.write(ENCODED, whole.to_bytes())
    forget("c", "patient 0")
    left = load_encoded(ward / "hospitals/c/encoded/0" / ENCODED)
    assert list(left.text_places) == ["Mass 1?", *said[4:]] and list(left.image_places) == names[2:]
    assert np.array_equal(left.read(list(left.text_places)), rows[[1, 4, 5, 6, 7]])
    assert np.array_equal(left.images, whole.images[2:])


def test_the_only_patient_of_a_hospital_can_be_forgotten(ward: Path) -> None:
    whole = Features(torch.ones(12, 3), {f"i{n}": 2 * n for n in range(6)}, {f"i{n}": (1, 1, 2) for n in range(6)}, 1)
    with writing("hospitals/a", "features", "0") as folder:
        folder.inputs = ["hospitals/a/cases/0"]
        folder.write(FEATURES, whole.to_bytes())
    for number, left in enumerate((4, 2, 0)):
        forget("a", f"patient {number}")
        features = load_features(ward / "hospitals/a/features/0" / FEATURES)
        assert len(features.starts) == left and features.rows.shape == (2 * left, 3)
    assert not read_table(ward / "hospitals/a/cases/0/cases.parquet", Case)
    assert len(forgotten_at(ward / "hospitals/a")) == 3


def test_the_command_lists_what_was_removed(ward: Path) -> None:
    command = [str(COMMAND), "forget", "--hospital", "a", "--patient", "patient 2", "--yes"]
    first, again = (
        subprocess.run(command, cwd=ward.parent, env=shell() | {"COLUMNS": "200"}, capture_output=True, text=True)
        for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "hospitals/a/cases/0" in first.stdout and "also held by b" in first.stdout
    assert "nothing was left" in again.stdout


@pytest.fixture
def clinic(ward: Path) -> Path:
    """The ward, with the cases of patients 100, 101 and 102 of a table: read alone, and beside another dataset."""
    (path,) = (ward / "hospitals/a/cases").glob("0/cases.parquet")
    cases = read_table(path, Case)
    for key, prefix in (("1", ""), ("2", "table/")):
        renamed = [
            replace(case, group=prefix + patient_digest(str(100 + n // 2)), image_id=prefix + case.image_id)
            for n, case in enumerate(cases)
        ]
        with writing("hospitals/d", "cases", key) as folder:
            for name in ("images.parquet", "copies.parquet", "findings.parquet"):
                folder.write(name, path.with_name(name).read_bytes())
            with folder.open("cases.parquet") as sink:
                write_table(sink, Case, renamed)
    return ward


@pytest.mark.parametrize("written", ["101", "101.0", " 101 ", patient_digest("101"), f"table/{patient_digest('101')}"])
def test_a_patient_is_forgotten_by_the_id_that_the_hospital_writes(clinic: Path, written: str) -> None:
    done = forget("d", written)
    assert not done.again and not traces(clinic / "hospitals/d", {"c2", "c3"})
    for key in ("1", "2"):
        left = read_table(clinic / "hospitals/d/cases" / key / "cases.parquet", Case)
        assert [case.id for case in left] == ["c0", "c1", "c4", "c5"]
    assert forget("d", "101").again
    (row,) = forgotten_at(clinic / "hospitals/d")
    assert name_digest("101") != row["digest"]  # three digits are soon guessed from it
    files = [path for path in clinic.rglob("*") if path.is_file()]
    assert not any("101" in names_in(path) for path in files)
    with pytest.raises(StudyError, match=r"as its table or DICOM file writes the id, or as .*, found '10'"):
        forget("d", "10")


def test_a_withdrawal_holds_whichever_datasets_stand_beside_the_table(clinic: Path) -> None:
    alone = read_table(clinic / "hospitals/d/cases/1/cases.parquet", Case)
    beside = read_table(clinic / "hospitals/d/cases/2/cases.parquet", Case)
    shutil.rmtree(clinic / "hospitals/d/cases/2")  # the table was never read beside another
    forget("d", "101")
    digests = all_digests()
    assert [case.id for case in alone if is_forgotten(case, digests)] == ["c2", "c3"]
    assert [case.id for case in beside if is_forgotten(case, digests)] == ["c2", "c3"]
    new = replace(beside[2], image_id="table/new")
    assert is_forgotten(new, digests) and not is_forgotten(replace(new, group=None), digests)


def test_a_damaged_folder_is_removed_whole(ward: Path) -> None:
    path = ward / "hospitals/a/predictions/0/predictions.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert dict(forget("a", "patient 1").removed)["hospitals/a/predictions/0"] == "all of it"
    assert not path.exists()


@pytest.mark.parametrize(
    ("hospital", "patient", "message"),
    [
        ("c", "patient 0", "Expected --hospital to be one of a, b, found 'c'."),
        ("../a", "patient 0", "Expected --hospital to be one of a, b, found '../a'."),
        ("a", "i0", "one of the 3 patients .* of a, .* or as patient 0, patient 1, patient 2, found 'i0'."),
    ],
)
def test_an_unknown_name_is_refused_and_changes_nothing(ward: Path, hospital: str, patient: str, message: str) -> None:
    before = tree(ward)
    with pytest.raises(StudyError, match=message):
        forget(hospital, patient)
    assert tree(ward) == before
