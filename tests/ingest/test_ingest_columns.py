"""Columns of a hospital's own table under other names: read, refused by name, or told, in each form of the table."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from dicom_samples import CANARY
from test_ingest_table import write_table

from flows.progress import log_unused_columns
from tasks.errors import StudyError
from tasks.ingest.step import ingest
from tasks.ingest.table import read
from tasks.records import Case
from tasks.settings import DatasetSettings

FORMS = ("csv", "jsonl", "parquet")
PLAIN = ("image", "question", "answer", "patient", "split", "kind", "modality", "organ")
CELLS = ("a/1.png", "Where?", "left", "P1", "test", "closed", "MR", "Head")


def rows_of(names: tuple[str, ...], count: int = 2) -> list[dict[str, Any]]:
    return [dict(zip(names, CELLS, strict=False)) for _ in range(count)]


def cases_of(root: Path, form: str, rows: list[dict[str, Any]]) -> list[Case]:
    return read(write_table(root, form, rows), language="en").cases


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "names",
    [
        ("Image", "QUESTION", "Answer", "Patient", "Split", "Kind", "Modality", "Organ"),
        (" image", "Question ", "answer\t", "patient ", " split", "kind", "modality", "organ"),
        ("Image_Path", "Question Text", "ground_truth", "PatientID", "subset", "Answer Type", "modality", "Body Part"),
        ("file-name", "query", "Answers", "Patient ID", "data_split", "answer_type", "modality", "BodyPartExamined"),
        ("imgPath", "questions", "reference", "subject_id", "partition", "answerType", "modality", "anatomy"),
        ("ｉｍａｇｅ", "\ufeffquestion", "answer", "MRN", "SPLIT", "kind", "MODALITY", "ORGAN"),
        ("DICOM path", "question", "answer", "pseudonym", "Split", "kind", "modality", "organ"),
    ],
)
def test_a_column_is_known_in_other_letters_and_by_common_synonyms(
    tmp_path: Path, form: str, names: tuple[str, ...]
) -> None:
    expected = cases_of(tmp_path / "plain", form, rows_of(PLAIN))
    assert cases_of(tmp_path / "other", form, rows_of(names)) == expected
    assert (expected[0].split, expected[0].kind, expected[0].modality, expected[0].organ) == (
        ("test", "closed", "mri", "head")
    )
    assert expected[0].group is not None


PAIRS = [("Patient", "patient"), ("PatientID", "MRN"), ("patient_id", "Patient ID"), ("split", "SPLIT")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pair", PAIRS)
def test_two_columns_of_one_meaning_are_refused_by_name(tmp_path: Path, form: str, pair: tuple[str, str]) -> None:
    rows = [row | dict.fromkeys(pair, CANARY) for row in rows_of(PLAIN[:3])]
    with pytest.raises(StudyError, match=r"row 1: expected one column that tells the (patient|split), found ") as error:
        cases_of(tmp_path, form, rows)
    assert all(repr(name) in str(error.value) for name in pair)
    assert CANARY not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_the_documented_name_goes_before_a_synonym_and_what_is_not_read_is_told(tmp_path: Path, form: str) -> None:
    row = dict(zip(PLAIN, CELLS, strict=True)) | {"path": CANARY, "Patient Sex": "F", "comment": CANARY}
    source = read(write_table(tmp_path / "more", form, [row]), language="en")
    assert source.unused == ("path", "Patient Sex", "comment")
    assert source.cases == cases_of(tmp_path / "plain", form, rows_of(PLAIN, 1))


def test_the_objects_of_a_file_may_differ_in_their_names(tmp_path: Path) -> None:
    rows = [*rows_of(PLAIN, 1), *rows_of(("Image", "Question", "Answer", "PatientID", *PLAIN[4:]), 1), {"Bild": CANARY}]
    root = write_table(tmp_path, "jsonl", rows)
    source = read(root, language="en", max_rejected=0.4)
    assert len({case.group for case in source.cases}) == 1 and len(source.cases) == 2
    assert source.unused == ("Bild",)
    assert [each.row for each in source.rejected] == [3] and CANARY not in source.rejected[0].reason


def test_messages_name_the_column_as_the_table_does(tmp_path: Path) -> None:
    row = dict(zip(("image", "Question ", "answer", "Split"), ("a/1.png", "Where?", "left", CANARY), strict=True))
    with pytest.raises(StudyError, match="in field 'Split', found another value"):
        cases_of(tmp_path, "parquet", [row])
    with pytest.raises(StudyError, match="expected text in field 'Question ', found none"):
        cases_of(tmp_path / "other", "jsonl", [row | {"Question ": None, "Split": "train"}])


@pytest.mark.parametrize(
    ("written", "split"),
    [("Train", "train"), ("training", "train"), ("val", "validation"), ("DEV", "validation"), ("testing", "test")],
)
def test_splits_are_known_by_their_usual_names(tmp_path: Path, written: str, split: str) -> None:
    assert cases_of(tmp_path, "csv", [dict(zip(PLAIN, CELLS, strict=True)) | {"split": written}])[0].split == split


def test_a_line_tells_the_columns_that_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [row | {"image": name, "split": ""} for row in rows_of(PLAIN) for name in ("a/1.png", "2.dcm")]
    logs = []
    for name, more in (("plain", {}), ("more", {"Ward": "B", **{f"c{n}": "" for n in range(30)}})):
        root = write_table(tmp_path / name, "csv", [row | {"patient": row["image"]} | more for row in rows])
        settings = DatasetSettings(name="table", root=root)
        dataset = ingest.fn(settings=settings, content=name, seed=0)
        with caplog.at_level(logging.INFO, "fed_rag"):
            caplog.clear()
            log_unused_columns(dataset)
        logs.append(caplog.text)
        assert "Ward" not in json.dumps(dataset.manifest()["summary"])  # which goes into results.json
    assert logs[0] == ""
    assert "not used: 'Ward', 'c0'" in logs[1] and "and 11 more" in logs[1]
