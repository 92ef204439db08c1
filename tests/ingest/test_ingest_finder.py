"""Tables and files whose names other systems wrote: taken where one is meant, else told by the class of trouble."""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dicom_samples import CANARY
from ingest_samples import picture, write_bytes

from tasks.errors import StudyError
from tasks.ingest import finder
from tasks.ingest.finder import Files
from tasks.ingest.table import read
from tasks.store import tree_digest

NFC, NFD = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


def export(root: Path, cells: list[str], table: str = "cases.csv", *files: str) -> Path:
    """A table of these image cells, and images of the given names, each another one."""
    lines = ["image,question,answer", *(f'"{cell}",Where?,left' for cell in cells)]
    write_bytes(root / table, "\n".join(lines).encode())
    for number, name in enumerate(files):
        write_bytes(root / name, picture(number))
    return root


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        (r"images\i0.png", "images/i0.png"),
        (r".\images\sub\i0.png", "images/sub/i0.png"),
        ("images/i0.PNG", "images/i0.png"),
        ("IMAGES/I0.png", "images/i0.PNG"),
        (f"images/{NFC}.png", f"images/{NFD}.png"),
        (f"{NFD}/i0.png", f"{NFC}/i0.png"),
        ("images/i0.png ", "images/i0.png"),
        (" images / i0.png", "images/i0.png"),
        ("images/scan 1.png", "images/scan  1.png"),
        ("images/scan 1.png", "images/scan\u00a01.png"),
        ("i0.png", "images/i0.png"),
        ("images/i0.png", "export/images/i0.png"),
        (r"Images\I0.PNG ", "export/images/i0.png"),
        ("images//i0.png", "images/i0.png"),
        (r"images\i0.png", r"images\i0.png"),
    ],
)
@pytest.mark.parametrize("table", ["cases.csv", "DATA.CSV", "export 2024/Cases.csv"])
def test_a_name_in_another_form_is_taken(tmp_path: Path, cell: str, file: str, table: str) -> None:
    if table.startswith("export 2024") and not cell.startswith(("images/i0", "i0")):
        file = f"export 2024/{file}"  # the whole of it one folder deeper
    source = read(export(tmp_path, [cell], table, file, "images/other.png"), language="en")
    assert [image.data for image in source.images] == [picture(0)]


@pytest.mark.parametrize(
    ("cell", "files"),
    [
        ("images/A.png", ["images/a.PNG", "images/a.png"]),
        ("a.png", ["one/a.png", "two/a.png"]),
        ("images/a.png", ["Images/a.png", "IMAGES/a.png"]),
        (" a.png", ["a.png", "A.png"]),
    ],
)
def test_of_several_files_that_are_alike_none_is_guessed(tmp_path: Path, cell: str, files: list[str]) -> None:
    with pytest.raises(StudyError, match="row 1: expected an image file, found several files whose names differ"):
        read(export(tmp_path, [cell], "cases.csv", *files), language="en")
    # Written as one of them is, there is no doubt.
    source = read(export(tmp_path, [files[1]], "cases.csv", *files), language="en")
    assert source.images[0].data == picture(1)


@pytest.mark.parametrize(
    ("cell", "trouble"),
    [
        (f"images/{CANARY}.png", "no such file, in any case"),
        (f"{CANARY}/i0.png", "no such file, in any case"),
        ("images/i0.jpg", "no such file, but one with another ending"),
        ("IMAGES/I0", "no such file, but one with another ending"),
        ("images", "a folder"),
        (rf"C:\{CANARY}\images\i0.png", "a drive or a server, of another system"),
        (rf"\\{CANARY}\images\i0.png", "a drive or a server, of another system"),
        (f"//{CANARY}/images/i0.png", "a drive or a server, of another system"),
        (f"https://{CANARY}/i0.png", "a web address"),
        (rf"..\{CANARY}\i0.png", "a path that leaves it"),
        (f"/{CANARY}/i0.png", "a path that leaves it"),
        (f"images/{CANARY}\0.png", "a path that leaves it"),
        (f"images/{CANARY * 30}.png", "an unreadable file"),
    ],
)
def test_the_class_of_the_trouble_is_told_and_no_name(tmp_path: Path, cell: str, trouble: str) -> None:
    root = export(tmp_path, [cell], "cases.csv", "images/i0.png", "images/i1.png")
    with pytest.raises(StudyError, match=r"cases.csv, row 1: expected .*, found .*; correct the row") as error:
        read(root, language="en")
    assert trouble in str(error.value)
    assert CANARY not in str(error.value)


def test_companions_of_a_table_are_none(tmp_path: Path) -> None:
    root = export(tmp_path, ["a.png"], "cases.csv", "a.png")
    for name in ("._cases.csv", "~$cases.csv", ".~lock.cases.csv", "deeper/._cases.csv", "__MACOSX/cases.csv"):
        write_bytes(root / name, b"\0\5\x16\7")
    (root / "folder.csv").mkdir()
    assert len(read(root, language="en").cases) == 1


def test_of_two_tables_none_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"none of them, nor one folder deeper; set dataset\.root"):
        read(tmp_path, language="en")
    for name in ("a/cases.csv", "b/CASES.CSV"):
        export(tmp_path, ["a.png"], name, "a.png")
    with pytest.raises(StudyError, match="expected one table, found 2; leave the one"):
        read(tmp_path, language="en")
    assert len(read(export(tmp_path, ["a.png"], "cases.csv", "a.png"), language="en").cases) == 1  # here before deeper


def test_links_are_followed_and_what_they_lead_to_is_part_of_the_datasets_state(tmp_path: Path) -> None:
    write_bytes(tmp_path / "store" / "sub" / "i0.png", picture(0))
    root = export(tmp_path / "export", ["images/sub/i0.png"])
    (root / "images").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    (tmp_path / "link").symlink_to(root)
    assert read(tmp_path / "link", language="en").images[0].data == picture(0)
    before = tree_digest(root)
    write_bytes(tmp_path / "store" / "sub" / "i0.png", picture(9))
    assert tree_digest(root) != before


def test_a_folder_is_listed_once_and_only_where_a_name_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: Counter[Any] = Counter()
    scan = finder.os.scandir

    def counted(folder: Any) -> Any:
        listed[Path(folder)] += 1
        return scan(folder)

    for number in range(50):
        write_bytes(tmp_path / "images" / f"{number}.png", b"")
    monkeypatch.setattr(finder.os, "scandir", counted)
    files = Files(tmp_path)
    for number in range(50):
        files.find(f"images/{number}.png", "here")
    assert not listed
    for number in range(50):
        files.find(f"images\\{number}.PNG", "here")
        with pytest.raises(StudyError):
            files.find(f"images/{number}.jpg", "here")
    assert listed[tmp_path / "images"] == 1 and max(listed.values()) == 1


@pytest.mark.parametrize("present", [True, False])
def test_parquet_with_a_path_and_no_bytes(tmp_path: Path, present: bool) -> None:
    write_bytes(tmp_path / "images" / ("i0.png" if present else "other.png"), picture(4))
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [
        {"bytes": None, "path": "images/i0.png"},
        {"bytes": picture(5), "path": CANARY},
        {"bytes": None, "path": None},
    ]
    table = {"image": pa.array(rows, image), "question": ["a?"] * 3, "answer": ["b"] * 3}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    source = read(tmp_path, language="en", max_rejected=0.7)
    assert [image.data for image in source.images] == ([picture(4), picture(5)] if present else [picture(5)])
    reasons = [each.reason for each in source.rejected]
    assert reasons[-1] == "expected an image's bytes or its file's path, found neither"
    assert present or reasons[0].startswith("expected an image file, found no such file")
