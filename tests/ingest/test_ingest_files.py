"""Whatever is wrong with a published file, one StudyError says where."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_samples import write_bytes

from tasks.errors import StudyError
from tasks.ingest.files import read_parquet, read_rows
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.rows import Row

LAYOUTS = ("data/train-*.json", "train.json")


@pytest.mark.parametrize(("root", "found"), [(None, "no folder"), (Path("/no/such/folder"), "no such folder")])
def test_missing_root_says_which_layouts_were_expected(root: Path | None, found: str) -> None:
    with pytest.raises(StudyError, match=f"{found}; set dataset.root") as error:
        find_root(root, "slake", LAYOUTS)
    assert all(layout in str(error.value) for layout in LAYOUTS)


def test_root_that_is_a_file_or_holds_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="found none of them"):
        find_root(tmp_path, "slake", LAYOUTS)
    write_bytes(tmp_path / "file", b"")
    with pytest.raises(StudyError, match="found a file"):
        find_root(tmp_path / "file", "slake", LAYOUTS)


def test_root_is_the_folder_of_the_layouts_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "train.json", b"")
    assert find_root(tmp_path, "slake", LAYOUTS) == (tmp_path, "train.json")
    write_bytes(tmp_path / "data" / "train-0.json", b"")
    assert find_root(tmp_path, "slake", LAYOUTS) == (tmp_path / "data", "data/train-*.json")


def test_path_inside_the_root_is_resolved(tmp_path: Path) -> None:
    assert resolve(tmp_path, "images", "a/../b.jpg", where="row 1") == tmp_path.resolve() / "images" / "b.jpg"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "link/secret.png", "loop", "a\0b", "../../root2/x"]
)
def test_path_that_leaves_the_root_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    write_bytes(tmp_path / "outside" / "secret.png", b"")
    (root / "images" / "link").symlink_to(tmp_path / "outside")
    (root / "images" / "loop").symlink_to(root / "images" / "loop")
    with pytest.raises(StudyError, match=r"train.json, row 3: expected a file inside"):
        resolve(root, "images", name, where="train.json, row 3")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "something else"),
        (b"[1, 2", "something else"),
        (b"\xff\xfe\x00", "something else"),
        (b"[" * 100_000, "something else"),
        (b'{"qid": 1}', "a dict"),
        (b"null", "a NoneType"),
        (b"[]", "an empty list"),
    ],
)
def test_file_that_is_no_json_list_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    write_bytes(tmp_path / "train.json", content)
    with pytest.raises(StudyError, match=f"train.json: expected a JSON list of objects, found {found}"):
        read_rows(tmp_path / "train.json")


def test_row_that_is_no_object_is_named(tmp_path: Path) -> None:
    write_bytes(tmp_path / "train.json", b'[{"qid": 1}, 5]')
    with pytest.raises(StudyError, match=r"train.json, row 2: expected an object, found 5"):
        read_rows(tmp_path / "train.json")


def test_missing_and_unreadable_json_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(StudyError, match="an unreadable file"):
            read_rows(path)


def test_byte_order_mark_and_nan_are_read(tmp_path: Path) -> None:
    write_bytes(tmp_path / "train.json", b'\xef\xbb\xbf[{"answer": NaN}]')
    (row,) = read_rows(tmp_path / "train.json")
    assert row.text_or_none("answer") is None
    assert row.where == f"{tmp_path / 'train.json'}, row 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  a \t b\n", "a b"),
        (3, "3"),
        (0, "0"),
        (2.5, "2.5"),
        (101.0, "101"),
        ("None", "None"),
        ("NULL", None),
        (" ", None),
    ],
)
def test_text_is_stripped_and_collapsed_and_nothing_else(value: object, text: str | None) -> None:
    assert Row(Path("f"), 1, {"answer": value}).text_or_none("answer") == text


def test_absent_null_and_foreign_fields_are_refused() -> None:
    row = Row(Path("train.json"), 7, {"null": None, "list": [1], "true": True, "half": "\ud800", "kind": "MAYBE"})
    with pytest.raises(StudyError, match=r"train.json, row 7: expected a field 'answer', found only \['half'"):
        row.text_or_none("answer")
    with pytest.raises(StudyError, match=r"train.json, row 7: expected text in field 'null', found none"):
        row.text("null")
    for field in ("list", "true", "half"):
        with pytest.raises(StudyError, match=f"train.json, row 7: expected text in field '{field}', found"):
            row.text_or_none(field)
    with pytest.raises(StudyError, match="row 7: expected one of open, closed in field 'kind', found 'MAYBE'"):
        row.choice("kind", {"open": 1, "closed": 2})


def test_parquet_rows_are_numbered_from_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": list(range(150)), "b": ["x"] * 150}), tmp_path / "t.parquet")
    rows = list(read_parquet(tmp_path / "t.parquet", ["a"]))
    assert [row.number for row in rows] == list(range(1, 151))
    assert [row.values for row in rows] == [{"a": number} for number in range(150)]


def test_parquet_without_a_field_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": ["x" * 1000]}), path)
    with pytest.raises(StudyError, match=r"t.parquet, row 1: expected .* with a, answer, found no field 'answer'"):
        list(read_parquet(path, ["a", "answer"]))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StudyError, match=r"t.parquet: expected a Parquet table with a, found something else"):
        list(read_parquet(path, ["a"]))
    with pytest.raises(StudyError, match=r"absent.parquet"):
        list(read_parquet(tmp_path / "absent.parquet", ["a"]))
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    pq.write_table(pa.table({"a": bad}), path)
    with pytest.raises(StudyError, match=r"t.parquet: expected a Parquet table with a, found something else"):
        list(read_parquet(path, ["a"]))
