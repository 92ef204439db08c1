"""A hospital's own table in each of its forms, and that nothing of a patient gets out of it."""

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dicom_samples import CANARY, dicom
from ingest_samples import picture, write_bytes

from tasks.cases.patients import patient_digest
from tasks.errors import StudyError
from tasks.ingest.table import read

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
ROWS = [
    {"image": "a/1.png", "question": "where?", "answer": "left", "patient": "Anna", "split": "train", "modality": "CT"},
    {"image": "a/1.png", "question": "is it?", "answer": "Yes", "patient": "Anna", "split": "", "modality": ""},
    {"image": "2.dcm", "question": "what?", "answer": "a, b", "patient": "", "split": "test", "modality": "X-Ray"},
]


def write_table(root: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"cases.{form}"
    if form == "csv":
        with path.open("w", newline="", encoding="utf-8") as sink:
            table = csv.DictWriter(sink, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pd.DataFrame(rows).to_parquet(path)
    write_bytes(root / "a" / "1.png", picture(1))
    write_bytes(root / "2.dcm", dicom(PIXELS))
    return root


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_rows_become_cases_in_each_form(tmp_path: Path, form: str) -> None:
    source = read(write_table(tmp_path, form, ROWS), language="en")
    assert [(case.id, case.kind, case.split, case.modality) for case in source.cases] == [
        ("table:1", "open", "train", "ct"),
        ("table:2", "closed", "train", None),
        ("table:3", "open", "test", "x-ray"),
    ]
    first, second, third = source.cases
    assert first.image_id == second.image_id != third.image_id
    assert first.group == second.group == patient_digest("Anna")
    assert third.group == patient_digest(CANARY)  # whom its DICOM file states, as the table does not
    assert "Anna" not in repr(source) and CANARY not in repr(source)
    assert source.images[0].data == picture(1)
    assert source.images[1].data.startswith(b"\x89PNG")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_integers_that_pandas_made_floats_are_integers_again(tmp_path: Path, form: str) -> None:
    whole = pd.DataFrame({"patient": [101, 101, None, 7, 12], "answer": [2, 1.5, 0, None, -3]})
    assert whole.dtypes.unique().tolist() == [np.float64]  # a blank has made them so
    frame = whole.assign(image="a/1.png", question="how many?")
    root = write_table(tmp_path, "csv", ROWS)
    (root / "cases.csv").unlink()
    if form == "csv":
        frame.to_csv(root / "cases.csv", index=False)
    elif form == "jsonl":
        frame.to_json(root / "cases.jsonl", orient="records", lines=True)
    else:
        frame.to_parquet(root / "cases.parquet")
    cases = read(root, language="en").cases
    assert [case.answer for case in cases] == ["2", "1.5", "0", "-3"]
    assert [case.group for case in cases] == [*[patient_digest("101")] * 2, None, patient_digest("12")]
    assert patient_digest("101") == patient_digest(" 101.0 ") != patient_digest("1010")


@pytest.mark.parametrize("blank", ["nan", "NaN", "None", "<NA>", "NA", "null", "NULL", " "])
def test_words_for_a_blank_cell_are_no_patient(tmp_path: Path, blank: str) -> None:
    assert read(write_table(tmp_path, "csv", [ROWS[0] | {"patient": blank}]), language="en").cases[0].group is None


@pytest.mark.parametrize(
    ("share", "wrong", "taken"), [(0.01, 1, True), (0.01, 2, False), (0, 1, False), (0.1, 2, True)]
)
def test_a_small_table_may_have_one_bad_row(tmp_path: Path, share: float, wrong: int, taken: bool) -> None:
    rows = [ROWS[0] | {"question": "" if number < wrong else "where?"} for number in range(20)]
    root = write_table(tmp_path, "csv", rows)
    if taken:
        assert len(read(root, language="en", max_rejected=share).rejected) == wrong
    else:
        message = (
            rf"{wrong} of 20 rows are unusable, more than dataset.max_rejected={share} allows \({wrong - 1} of 20\)"
        )
        with pytest.raises(StudyError, match=message):
            read(root, language="en", max_rejected=share)


def test_one_patient_written_in_both_unicode_forms_is_one(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    cases = read(write_table(tmp_path, "jsonl", [ROWS[0] | {"patient": name} for name in names]), language="en").cases
    assert cases[0].group == cases[1].group


def write_scans(root: Path, patients: list[str | None], stated: str = "") -> Path:
    """A table of DICOM files, each another image."""
    rows = [ROWS[2] | {"image": f"{n}.dcm", "patient": stated} for n in range(len(patients))]
    write_table(root, "csv", rows)
    for number, patient in enumerate(patients):
        write_bytes(root / f"{number}.dcm", dicom(PIXELS + np.uint8(number) * (PIXELS > 9), PatientID=patient))
    return root


def test_where_the_table_states_no_patient_the_dicom_file_does(tmp_path: Path) -> None:
    source = read(write_scans(tmp_path / "a", ["17", " 17", "18", None, ""]), language="en")
    seventeen, eighteen = map(patient_digest, ("17", "18"))
    assert [case.group for case in source.cases] == [seventeen, seventeen, eighteen, None, None]
    source = read(write_scans(tmp_path / "b", ["17", "18"], stated="P1"), language="en")
    assert {case.group for case in source.cases} == {patient_digest("P1")}


def test_an_id_that_all_dicom_files_have_is_no_patient(tmp_path: Path) -> None:
    source = read(write_scans(tmp_path / "many", ["ANON"] * 3), language="en")
    assert {case.group for case in source.cases} == {None}
    assert source.notes == {"cases whose DICOM files all state one patient id, taken as of no stated patient": 3}
    (case,) = read(write_scans(tmp_path / "one", ["17"]), language="en").cases
    assert case.group == patient_digest("17")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_part_cells_by_other_marks_and_begin_with_one_of_byte_order(
    tmp_path: Path, delimiter: str
) -> None:
    rows = (["image", "question", "answer"], ["a/1.png", '"one; two, or three?"', "b"])
    text = "\r\n".join(map(delimiter.join, rows))
    root = write_table(tmp_path, "csv", ROWS)
    write_bytes(root / "cases.csv", b"\xef\xbb\xbf" + text.encode())
    (case,) = read(root, language="en").cases
    assert (case.question, case.answer) == ("one; two, or three?", "b")


def test_missing_values_of_pandas_are_none(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"answer": float("nan")}, ROWS[0] | {"answer": 2.5}]
    root = write_table(tmp_path, "csv", rows)
    (root / "cases.csv").unlink()
    pd.DataFrame(rows).to_parquet(root / "cases.parquet")
    source = read(root, language="en")
    assert [case.answer for case in source.cases] == ["2.5"]
    assert source.notes == {"rows without an answer left out": 1}


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    names = ["image", "question", "answer", "kind", "kind"]
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 5, names=names), tmp_path / "t.parquet")
    with pytest.raises(StudyError, match="more than one field 'kind'; correct the names"):
        read(tmp_path, language="en")


@pytest.mark.parametrize("inside", [True, False])
def test_an_absolute_path_is_read_where_it_stays_inside(tmp_path: Path, inside: bool) -> None:
    place = tmp_path / "export" if inside else tmp_path
    write_bytes(place / "3.png", picture(3))
    root = write_table(tmp_path / "export", "csv", [ROWS[0] | {"image": str(place / "3.png")}])
    if inside:
        assert read(root, language="en").images[0].data == picture(3)
    else:
        with pytest.raises(StudyError, match="a file inside the dataset's folder, found a path that leaves it"):
            read(root, language="en")


def test_only_three_columns_are_needed(tmp_path: Path) -> None:
    rows = [{"image": "a/1.png", "question": "在哪?", "answer": "左"}]
    (case,) = read(write_table(tmp_path, "jsonl", rows), language="zh").cases
    assert (case.kind, case.split, case.organ, case.group, case.language) == ("open", "train", None, None, "zh")


@pytest.mark.parametrize("image", [picture(3), {"bytes": picture(3), "path": None}])
def test_images_may_lie_inside_parquet(tmp_path: Path, image: Any) -> None:
    pq.write_table(pa.table({"image": [image], "question": ["a?"], "answer": ["b"]}), tmp_path / "t.parquet")
    assert read(tmp_path, language="en").images[0].data == picture(3)


def test_one_image_under_two_names_is_one_image(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[0] | {"image": "copy.png"}]
    write_bytes(tmp_path / "copy.png", picture(1))
    assert len(read(write_table(tmp_path, "csv", rows), language="en").images) == 1


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"image": f"{CANARY}.png"}, "an image file, found no such file"),
        ({"image": f"../{CANARY}.png"}, "a file inside the dataset's folder, found a path that leaves it"),
        ({"image": f"a/1.png/{CANARY}"}, "an image file, found an unreadable file"),
        ({"image": f"{CANARY}.txt"}, "a whole image, found 2 bytes that are no image"),
        ({"split": CANARY}, "one of train, validation, test in field 'split', found another value"),
        ({"question": ""}, "text in field 'question', found none"),
        ({"answer": [CANARY]}, "text in field 'answer', found another value"),
    ],
)
def test_wrong_rows_name_table_and_row_but_quote_nothing(tmp_path: Path, fields: dict[str, Any], found: str) -> None:
    root = write_table(tmp_path, "jsonl", [ROWS[0], ROWS[0] | fields])
    write_bytes(root / f"{CANARY}.txt", b"no")
    with pytest.raises(StudyError, match=r"cases.jsonl, row 2: ") as error:
        read(root, language="en")
    assert f"expected {found}" in str(error.value)
    assert CANARY not in str(error.value)
    (rejected,) = read(root, language="en", max_rejected=0.5).rejected
    assert (rejected.file, rejected.row) == ("cases.jsonl", 2)
    assert CANARY not in rejected.reason


def test_damaged_lines_are_rejected_and_counted(tmp_path: Path) -> None:
    path = write_table(tmp_path, "jsonl", ROWS) / "cases.jsonl"
    path.write_bytes(path.read_bytes() + b"[1]\n{\n\xff\n")
    assert [each.row for each in read(tmp_path, language="en", max_rejected=0.5).rejected] == [4, 5, 6]
    write_table(tmp_path / "csv", "csv", ROWS)
    path = tmp_path / "csv" / "cases.csv"
    path.write_bytes(path.read_bytes() + b"a/1.png,too short\na,b,c,d,e,f,g\n")
    assert [each.row for each in read(tmp_path / "csv", language="en", max_rejected=0.5).rejected] == [4, 5]


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for content, found in [
        (b"image,question\n", "no field 'answer'"),
        (b"image,image,question,answer\n", "more than one field 'image'"),
        (b"image,question,answer,split,split\n", "more than one field 'split'"),
        (b"", "no field 'image'"),
        (b'image,question,answer\na,"b', "something else"),
        (b"image,question,answer\n\xff,b,c", "another encoding; save it as UTF-8"),
        ("image,question,answer\n".encode("utf-16"), "another encoding; save it as UTF-8"),
    ]:
        write_bytes(tmp_path / "t.csv", content)
        with pytest.raises(StudyError, match=rf"t.csv.*: expected a CSV table in UTF-8 .*, found {found}"):
            read(tmp_path, language="en")
    write_bytes(tmp_path / "u.jsonl", b"{}")
    with pytest.raises(StudyError, match="expected one table, found 2; leave the one"):
        read(tmp_path, language="en")
