"""Canaries: strings and images that only one hospital has are nowhere outside its folder, after a whole study.

`artifacts/source/` and the published dataset itself play the hospitals' disks in a simulation, which has to begin with
all data in one place; a real federation has neither. Everything else is searched: what is shared, the run and its
pages, records of stages, Prefect's database and logs, and what commands print.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command import COMMAND, Server, run
from dicom_samples import dicom
from ingest_samples import slake_row, write_bytes, write_json
from test_flow import UNEXPLAINED
from traces import Traces, files

from tasks.audit.fingerprint import fingerprint
from tasks.records import Case, Image, read_images, read_table
from tasks.records.pixels import pixel_levels, to_rgb

IMAGES, HOSPITALS = 30, 2
MODALITIES = ("CT", "MRI", "X-Ray")
EXPLAINED = ("evaluation.reliance=4", "evaluation.examined=2", "evaluation.saliency=2")


@dataclass(frozen=True)
class Planted:
    """What was planted, and how a study is told of it."""

    words: tuple[str, ...]
    """Of each image, in each place that can hold a text."""
    settings: tuple[str, ...]


def canary(place: str, number: int) -> str:
    """A word that nothing else has, of one image and one place."""
    return f"{place}zwetschge{number:03}knoedel"


def texture(number: int) -> np.ndarray:
    """Pixels unlike those of any other image, flat nowhere."""
    return np.random.default_rng(number).integers(0, 255, (48, 48), dtype=np.uint8)


def table(root: Path) -> Planted:
    """A hospital's export: DICOM files, with canaries in their names and tags, and in each column."""
    places = ("file", "patient", "name", "physician", "comment", "question", "answer", "organ")
    rows = []
    for number in range(IMAGES):
        word = {place: canary(place, number) for place in places}
        tags = {"PatientName": word["name"], "PatientID": word["patient"], "ReferringPhysicianName": word["physician"]}
        data = dicom(texture(number), **tags, ImageComments=word["comment"])
        write_bytes(root / f"{word['file']}.dcm", data)
        common = {"image": f"{word['file']}.dcm", "patient": word["patient"], "organ": word["organ"]}
        rows.append(common | {"question": f"Is the {word['question']} seen?", "answer": ("yes", "no")[number % 2]})
        rows.append(common | {"question": f"What of the {word['question']}?", "answer": f"a {word['answer']}"})
        rows.append(common | {"question": "Which side?", "answer": ("left", word["answer"])[number % 3 == 0]})
    with (root / "cases.csv").open("w", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    words = tuple(canary(place, number) for place in places for number in range(IMAGES))
    return Planted(words, ("dataset.name=table", f"dataset.root={root}", "dataset.test_fraction=0.3"))


def slake(root: Path) -> Planted:
    """SLAKE, with canaries as organ, topic, modality, question and answer, and in the names of images."""
    places = ("file", "question", "answer", "location", "topic", "modality")
    rows: list[dict[str, object]] = []
    for number in range(IMAGES):
        word = {place: canary(place, number) for place in places}
        place = f"{word['file']}/source.png"
        sink = io.BytesIO()
        PIL.Image.fromarray(texture(number)).save(sink, "PNG")
        write_bytes(root / "imgs" / place, sink.getvalue())
        common = {"img_id": number, "img_name": place, "location": word["location"], "content_type": word["topic"]}
        common["modality"] = word["modality"] if number % 4 == 0 else MODALITIES[number % 3]
        asked = f"Is the {word['question']} seen?", f"What of the {word['question']}?"
        answers = (("Yes", "No")[number % 2], "CLOSED"), (word["answer"], "OPEN")
        for at, (question, (answer, kind)) in enumerate(zip(asked, answers, strict=True)):
            told = {"question": question, "answer": answer, "answer_type": kind}
            rows.append(slake_row(10 * number + at, **common | told))
    cut = 2 * (2 * IMAGES // 3)
    write_json(root / "train.json", rows[:cut])
    write_json(root / "test.json", rows[cut:])
    words = tuple(canary(place, number) for place in places for number in range(IMAGES))
    return Planted(words, ("dataset.name=slake", f"dataset.root={root}"))


def traces_of(planted: Planted, root: Path, artifacts: Path) -> Traces:
    """All that would give away what was planted: words, rows as the study reads them, and images in every form."""
    paths = artifacts.glob("hospitals/*/cases/*/cases.parquet")
    cases = [case for path in paths for case in read_table(path, Case)]
    texts = {text for case in cases for text in (case.id, case.image_id, case.question, case.group)}
    texts |= {case.answer for case in cases if "knoedel" in case.answer}
    images = [image for path in artifacts.glob("hospitals/*/cases/*/images.parquet") for image in read_images(path)]
    stored = [form for image in images for form in forms(image)]
    given = [path.read_bytes() for path in files([root]) if path.suffix in (".dcm", ".png")]
    assert len(images) == IMAGES and len(given) == IMAGES
    return Traces([*planted.words, *(text for text in texts if text)], [*stored, *given])


def forms(image: Image) -> list[bytes]:
    """An image as it is stored, and what the code hashes or compares of it: pixels, picture, fingerprint."""
    levels, picture = pixel_levels(image.data), to_rgb(image.data)
    return [
        image.data,
        levels.tobytes(),
        repr((levels.shape, str(levels.dtype))).encode() + levels.tobytes(),
        f"{picture.size}".encode() + picture.tobytes(),
        *(each.tobytes() for each in fingerprint(image).pictures),
    ]


def outside(folder: Path) -> list[Path]:
    """Everything in a study's folder but the hospitals' folders and the simulation's source."""
    artifacts = folder / "artifacts"
    rest = [path for path in artifacts.iterdir() if path.name not in ("hospitals", "source")]
    return [*rest, *(path for path in folder.iterdir() if path != artifacts)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "more"),
    [
        pytest.param(
            table,
            ("federation.personal=ditto", "evaluation.coverage=0.8", "retrieval.fusion=gated", *EXPLAINED),
            marks=pytest.mark.proof,
        ),
        (slake, ("federation.secure_aggregation=true", "federation.strategy=fedadam", *UNEXPLAINED)),
    ],
    ids=["table", "slake"],
)
def test_nothing_of_a_case_is_found_outside_its_hospital(
    plant: Callable[[Path], Planted], more: tuple[str, ...], server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    """Withholding nothing for being few, with all logs: what is not told must not be anywhere."""
    root, work = tmp_path / "export", tmp_path / "work"
    planted = plant(root)
    work.mkdir()
    few = ("federation.rounds=1", f"partition.hospitals={HOSPITALS}", "partition.scheme=iid")
    told = ("evaluation.max_new_tokens=4", "evaluation.min_cell=1")
    settings = (f"model.name={tiny_folder}", *few, *told, *planted.settings, *more)
    server.environment["PREFECT_LOGGING_LEVEL"] = "DEBUG"
    try:
        done = run(server, work, [str(COMMAND), "run"] + [word for each in settings for word in ("--set", each)])
    finally:
        del server.environment["PREFECT_LOGGING_LEVEL"]
    assert done.returncode == 0, done.stderr
    (work / "printed.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    traces, artifacts = traces_of(planted, root, work / "artifacts"), work / "artifacts"
    for hospital in range(1, HOSPITALS + 1):  # so it is there, and would be found
        assert traces.found([artifacts / f"hospitals/hospital-{hospital}"])
    searched = outside(work)
    assert {"shared", "runs", ".records", "latest", "printed.txt"} <= {path.name for path in searched}
    assert json.loads((artifacts / "latest/results.json").read_text())["dataset"]["images"] == IMAGES
    assert traces.found([*searched, server.home]) == {}
