"""The audit steps: what splits and hospitals share, a negative control, and what the base has seen of the tests."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from tasks.records import Caption, Case, Image, ImagePair, read_images, read_table, write_table
from tasks.records.federation import Dealt
from tasks.records.shared_documents import SeenDocument
from tasks.store import Ref
from tasks.store.leaving import Document
from tasks.store.stage import Folder, stage

if TYPE_CHECKING:
    from tasks.cases.seen import Sight

AUDIT = "audit.json"
PAIRS = "image_pairs.parquet"
SEEN = "seen.json"
CONTROL = "control.json"
START = "start.json"


@stage("audit", area="source")
def audit(folder: Folder, cases: Ref, dataset: Ref, seed: int, against: str | None = None, content: str = "") -> None:
    """Audit what test shares with training: writes `audit.json`, and the pairs of copies among the images.

    `against` names a folder with images of another dataset; `content` identifies the state of its files.
    """
    from tasks.audit.document import Likeness, inside
    from tasks.audit.document import audit as count
    from tasks.audit.fingerprint import fingerprints
    from tasks.audit.folder import folder_images
    from tasks.audit.pairs import image_pairs, whole_shapes
    from tasks.audit.scores import score_without_model
    from tasks.records.pixels import pixel_digest

    def images(wanted: set[str] | None = None) -> Iterator[Image]:
        of_dataset = read_images(dataset.folder / "images.parquet")
        every = chain(of_dataset, folder_images(Path(against))) if against else of_dataset
        return (image for image in every if wanted is None or image.id in wanted)

    def pixels(wanted: set[str]) -> dict[str, bytes]:
        return {image.id: pixel_digest(image.data) for image in images(wanted)} if wanted else {}

    rows = read_table(cases.folder / "cases.parquet", Case)
    prints = list(fingerprints(images()))
    pairs = image_pairs(prints, pixels)
    train = [case for case in rows if case.split == "train"]
    test = [case for case in rows if case.split == "test"]
    captions = read_table(dataset.folder / "captions.parquet", Caption)
    document = count(rows, captions, pairs)
    document["scores"] = score_without_model(train, test, whole_shapes(prints), Likeness(rows, pairs).copy_class, seed)
    if against:
        document["against"] = inside(pairs)
    with folder.open(PAIRS) as sink:
        write_table(sink, ImagePair, pairs)
    folder.write_json(AUDIT, document)
    found = document["train_test"]
    folder.summary = {name: row["n"] for name, row in found.items() if isinstance(row, dict)}


@stage("audit-control", area="source")
def audit_control(folder: Folder, cases: Ref, dataset: Ref, findings: Ref, control: Ref, name: str) -> None:
    """Count the images of an unrelated dataset that lie as near to training as copies: writes `control.json`.

    The control's images take the place of the test images, so both are looked for among the same others. `findings` are
    the pairs of copies of the audit; `control` is the unrelated dataset, which is called `name`.
    """
    from tasks.audit.control import PREFIX, beside_control, split_images
    from tasks.audit.fingerprint import fingerprints
    from tasks.audit.pairs import image_pairs
    from tasks.records.pixels import pixel_digest

    cases_or_captions: list[Case] | list[Caption] = read_table(cases.folder / "cases.parquet", Case)
    cases_or_captions = cases_or_captions or read_table(dataset.folder / "captions.parquet", Caption)
    *_, only_tested = split_images(cases_or_captions)

    def ours() -> Iterator[Image]:
        return (image for image in read_images(dataset.folder / "images.parquet") if image.id not in only_tested)

    def theirs() -> Iterator[Image]:
        return (replace(image, id=PREFIX + image.id) for image in read_images(control.folder / "images.parquet"))

    def pixels(wanted: set[str]) -> dict[str, bytes]:
        images = chain(ours(), theirs()) if wanted else ()
        return {image.id: pixel_digest(image.data) for image in images if image.id in wanted}

    added = list(fingerprints(theirs()))
    names = {each.image_id for each in added}
    found = image_pairs([*fingerprints(ours()), *added], pixels, among=names)
    pairs = read_table(findings.folder / PAIRS, ImagePair)
    folder.write_json(CONTROL, beside_control(cases_or_captions, pairs, names, found, name))


@stage("audit-hospitals", area="source")
def audit_hospitals(folder: Folder, cases: Ref, findings: Ref, assignment: Ref) -> None:
    """Audit what each pair of hospitals shares: writes `hospitals.json`."""
    from tasks.audit.document import Likeness, between

    rows = read_table(cases.folder / "cases.parquet", Case)
    pairs = read_table(findings.folder / PAIRS, ImagePair)
    table = pq.read_table(assignment.folder / "assignment.parquet").to_pylist()
    owner = {row["image_id"]: row["hospital"] for row in table}
    folder.write_json("hospitals.json", between(rows, Likeness(rows, pairs), owner))


@stage("audit-start", area="source")
def audit_start(folder: Folder, now: Dealt, before: list[Dealt]) -> None:
    """Count the test cases that an adapter was trained on: writes `start.json`. `before` is what it was trained on."""
    from tasks.audit.start import questions_of, trained_before
    from tasks.records.pixels import pixel_digest

    def pixels(dealt: Dealt, wanted: set[str]) -> dict[str, bytes]:
        every = read_images(dealt.dataset.folder / "images.parquet")
        return {image.id: pixel_digest(image.data) for image in every if image.id in wanted}

    known: set[tuple[bytes, str]] = set()
    for each in before:
        training = [case for case in _dealt(each) if case.split == "train"]
        known |= questions_of(training, pixels(each, {case.image_id for case in training}))
    rows = [case for case in _dealt(now) if case.split in ("train", "test")]
    found = trained_before(rows, known, pixels(now, {case.image_id for case in rows}))
    tested = sum(case.split == "test" for case in rows)
    folder.write_json(START, {"test_cases": tested, "trained_before": len(found), "cases": found})


def _dealt(dealt: Dealt) -> list[Case]:
    """The cases that a partition has kept, with the splits that it gave them."""
    table = pq.read_table(dealt.assignment.folder / "splits.parquet").to_pylist()
    splits = {row["case_id"]: row["split"] for row in table}
    rows = read_table(dealt.cases.folder / "cases.parquet", Case)
    return [replace(case, split=splits[case.id]) for case in rows if case.id in splits]


def read_start(ref: Ref) -> dict[str, Any]:
    """Read the document of a finished `audit_start`."""
    return json.loads((ref.folder / START).read_text(encoding="utf-8"))


@stage("seen", area="shared", title="seen {hospital}", leaves=("counts",), writes={"seen.json": Document(SeenDocument)})
def count_seen(folder: Folder, hospital: str, cases: Ref, record: str, content: str, min_cell: int) -> None:
    """Count a hospital's test images that the base was trained on, withholding what is of few: writes `seen.json`.

    `record` is the path of the base's record, and `content` its digest.
    """
    from tasks.audit.seen import seen_counts

    test = [case for case in read_table(cases.folder / "cases.parquet", Case) if case.split == "test"]
    found = _seen(test, cases, record)
    folder.write_json(SEEN, {"hospital": hospital, "record": content, **seen_counts(test, found, min_cell)})


@stage("audit-seen", area="source")
def audit_seen(folder: Folder, cases: Ref, dataset: Ref, record: str, content: str) -> None:
    """Count a dataset's test images that a base was trained on, and list the cases about them: writes `seen.json`."""
    from tasks.audit.seen import seen_counts

    rows: list[Case] | list[Caption] = read_table(cases.folder / "cases.parquet", Case)
    rows = rows or read_table(dataset.folder / "captions.parquet", Caption)
    test = [row for row in rows if row.split == "test"]
    found = _seen(test, dataset, record)
    ids = [row.id if isinstance(row, Case) else row.image_id for row in test if row.image_id in found]
    folder.write_json(SEEN, {"record": content, **seen_counts(test, found), "test_cases": ids})


def _seen(test: Sequence[Case | Caption], images: Ref, record: str) -> dict[str, "Sight"]:
    """How the base has seen each test image, by id."""
    from tasks.cases.seen import find_seen
    from tasks.cases.seen import read_seen as read_record

    wanted = {row.image_id for row in test}
    every = read_images(images.folder / "images.parquet")
    return find_seen((image for image in every if image.id in wanted), read_record(Path(record)))


def read_seen(ref: Ref) -> dict[str, Any]:
    """Read the document of a finished `audit_seen`."""
    return json.loads((ref.folder / SEEN).read_text(encoding="utf-8"))


def read_control(ref: Ref | None) -> dict[str, Any] | None:
    """Read the document of a finished negative control; None without one."""
    return json.loads((ref.folder / CONTROL).read_text(encoding="utf-8")) if ref else None


def read_audit(ref: Ref) -> dict[str, Any]:
    """Read the document of a finished audit."""
    return json.loads((ref.folder / AUDIT).read_text(encoding="utf-8"))
