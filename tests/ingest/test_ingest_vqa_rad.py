"""VQA-RAD in its three layouts: the real files, and each of their traps in the small."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ingest_samples import (
    osf_row,
    picture,
    png_header,
    rad_row,
    real,
    write_bytes,
    write_mevf,
    write_osf,
    write_parquet,
)

from tasks.errors import StudyError
from tasks.ingest.source import Source
from tasks.ingest.vqa_rad import read

REPEATED = "rows kept that repeat another row's image, question and answer"


@pytest.fixture(scope="module")
def osf() -> Source:
    return read(real("vqa-rad-osf"), frames=False)


@pytest.fixture(scope="module")
def mevf() -> Source:
    return read(real("vqa-rad"), frames=False)


def counts(source: Source, *names: str) -> Counter[Any]:
    return Counter(tuple(getattr(case, name) for name in names) for case in source.cases)


def one(source: Source, case_id: str) -> Any:
    (case,) = [case for case in source.cases if case.id == case_id]
    return case


def raw(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_real_osf_counts(osf: Source) -> None:
    assert counts(osf, "split", "kind") == {("train", "closed"): 1027, ("train", "open"): 770}
    assert counts(osf, "organ") == {("chest",): 620, ("head",): 596, ("abdomen",): 581}
    assert counts(osf, "language", "modality", "dataset") == {("en", None, "vqa-rad"): 1797}
    assert len(osf.images) == 313
    assert osf.notes == {REPEATED: 3}


def test_real_osf_rows_agree_with_the_file(osf: Source) -> None:
    rows = {f"vqa-rad:{row['qid']}": row for row in raw(real("vqa-rad-osf") / "VQA_RAD Dataset Public.json")}
    assert {case.id for case in osf.cases} == set(rows)
    for case in osf.cases:
        row = rows[case.id]
        assert case.answer == " ".join(str(row["answer"]).split())
        assert case.question == " ".join(row["question"].split())
        assert case.kind == row["answer_type"].strip().lower()
        assert f"{case.image_id}.jpg" == row["image_name"]


def test_real_osf_image_has_one_group(osf: Source) -> None:
    urls = defaultdict(set)
    for row in raw(real("vqa-rad-osf") / "VQA_RAD Dataset Public.json"):
        urls[row["image_name"].removesuffix(".jpg")].add(row["image_case_url"])
    groups = defaultdict(set)
    for case in osf.cases:
        groups[case.image_id].add(case.group)
    assert sum(len(found) > 1 for found in urls.values()) == 4
    assert all(len(found) == 1 and found <= urls[image] for image, found in groups.items())
    assert len(set.union(*groups.values())) == 312


def test_real_images_are_the_published_bytes(osf: Source) -> None:
    folder = real("vqa-rad-osf") / "VQA_RAD Image Folder"
    for image in osf.images[:20]:
        assert image.data == (folder / f"{image.id}.jpg").read_bytes()


def test_real_mevf_counts_without_frame_rows(mevf: Source) -> None:
    folder = real("vqa-rad") / "data_RAD"
    expected = Counter(
        (split, row["answer_type"].strip().lower())
        for name, split in (("trainset.json", "train"), ("testset.json", "test"))
        for row in raw(folder / name)
        if row["phrase_type"] != "frame"
    )
    assert counts(mevf, "split", "kind") == expected
    assert counts(mevf, "split") == {("train",): 1602, ("test",): 195}
    assert counts(mevf, "organ") == {("chest",): 620, ("head",): 596, ("abdomen",): 581}
    assert mevf.notes == {
        "frame rows of the train set left out": 1156,
        "frame rows of the test set left out": 111,
        REPEATED: 3,
    }


def test_real_mevf_with_frame_rows() -> None:
    source = read(real("vqa-rad/data_RAD"), frames=True)
    assert counts(source, "split") == {("train",): 2758, ("test",): 306}
    assert counts(source, "kind") == {("closed",): 1823, ("open",): 1241}
    assert len(source.images) == 314
    assert set(source.notes) == {REPEATED}


def test_real_hugging_face_counts() -> None:
    folder = real("vqa-rad-hf")
    source = read(folder, frames=False)
    assert counts(source, "split", "kind") == {
        ("train", "closed"): 111,
        ("train", "open"): 9,
        ("test", "closed"): 32,
        ("test", "open"): 8,
    }
    rows = [row for split in ("train", "test") for row in pq.read_table(next(folder.rglob(f"{split}-*"))).to_pylist()]
    digests = {hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows}
    assert {image.id for image in source.images} == {digest[:16] for digest in digests}
    assert all(hashlib.sha256(image.data).hexdigest().startswith(image.id) for image in source.images)
    assert [case.answer for case in source.cases] == [row["answer"] for row in rows]


def test_real_hugging_face_files_may_lie_in_the_root() -> None:
    assert read(real("vqa-rad-hf") / "data", frames=False) == read(real("vqa-rad-hf"), frames=False)


def test_oddities_of_the_values_die_here(tmp_path: Path) -> None:
    rows = [
        osf_row("0", answer="YES ", answer_type="CLOSED "),
        osf_row(1, answer=3, answer_type="OPEN", image_organ="ABD", question="  What\tis  it? "),
        osf_row(2, question_type="NULL", image_case_url=None, image_organ="NULL", image="synpic2.jpg"),
        osf_row(3, answer="None", answer_type="OPEN"),
    ]
    del rows[0]["evaluation"]  # not read, so it may be absent
    source = read(write_osf(tmp_path, rows), frames=False)
    assert one(source, "vqa-rad:0").kind == "closed"
    assert one(source, "vqa-rad:0").answer == "YES"
    assert one(source, "vqa-rad:1").answer == "3"
    assert one(source, "vqa-rad:1").organ == "abdomen"
    assert one(source, "vqa-rad:1").question == "What is it?"
    assert (one(source, "vqa-rad:2").topic, one(source, "vqa-rad:2").organ) == (None, None)
    assert one(source, "vqa-rad:3").answer == "None"


def test_osf_test_rows_are_told_by_their_phrase_type(tmp_path: Path) -> None:
    rows = [osf_row(0), osf_row(1, phrase_type="test_freeform"), osf_row(2, phrase_type="test_para"), osf_row(3)]
    source = read(write_osf(tmp_path, rows), frames=False)
    assert [case.split for case in source.cases] == ["train", "test", "test", "train"]


def test_row_without_an_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [osf_row(0), osf_row(1, answer=""), osf_row(2, answer=None), osf_row(3, answer="NULL", image="gone.jpg")]
    source = read(write_osf(tmp_path, rows), frames=False)
    assert [case.id for case in source.cases] == ["vqa-rad:0"]
    assert source.notes == {"rows without an answer left out": 3}


def test_rows_that_repeat_another_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [osf_row(0, question="same?"), osf_row(1, question="same?"), osf_row(2, question="same?", answer="No")]
    source = read(write_osf(tmp_path, rows), frames=False)
    assert len(source.cases) == 3
    assert source.notes == {REPEATED: 1}


def test_frame_rows_stay_out_of_both_mevf_splits(tmp_path: Path) -> None:
    train = [rad_row(0), rad_row(1, phrase_type="frame"), rad_row(2, phrase_type="para")]
    test = [rad_row(3, "synpic2.jpg"), rad_row(4, "synpic3.jpg", phrase_type="frame")]
    root = write_mevf(tmp_path / "data_RAD", train, test)
    source = read(root, frames=False)
    assert [case.id for case in source.cases] == ["vqa-rad:0", "vqa-rad:2", "vqa-rad:3"]
    assert [image.id for image in source.images] == ["synpic1", "synpic2"]
    assert len(read(root, frames=True).cases) == 5
    assert read(tmp_path, frames=False) == source


def test_mevf_test_set_may_be_absent(tmp_path: Path) -> None:
    source = read(write_mevf(tmp_path, [rad_row(0)]), frames=False)
    assert [case.split for case in source.cases] == ["train"]


def test_qid_in_two_rows_is_refused(tmp_path: Path) -> None:
    root = write_mevf(tmp_path, [rad_row(0), rad_row(7)], [rad_row(3), rad_row("7")])
    with pytest.raises(
        StudyError, match=r"testset.json, row 2: .* found 'vqa-rad:7', which .*trainset.json, row 2 has"
    ):
        read(root, frames=False)


@pytest.mark.parametrize("field", ["qid", "image_name", "question", "answer", "answer_type", "phrase_type"])
def test_row_that_lacks_a_field_is_named(tmp_path: Path, field: str) -> None:
    rows = [osf_row(0), osf_row(1)]
    del rows[1][field]
    with pytest.raises(StudyError, match=rf"Public.json, row 2: expected a field '{field}', found only"):
        read(write_osf(tmp_path, rows), frames=False)


def test_unknown_answer_type_is_refused(tmp_path: Path) -> None:
    rows = [osf_row(0, answer_type="MAYBE")]
    with pytest.raises(StudyError, match=r"row 1: expected one of closed, open in field 'answer_type', found 'MAYBE'"):
        read(write_osf(tmp_path, rows), frames=False)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "../VQA_RAD Dataset Public.json/../../x"])
def test_image_name_that_leaves_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyError, match=r"Public.json, row 2: expected a file inside .*correct the row"):
        read(write_osf(tmp_path, [osf_row(0), osf_row(1, name)]), frames=False)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (None, "no such file"),
        (b"not an image", "12 bytes that are no image"),
        (picture(size=(64, 64), form="JPEG")[:400], ""),
        (png_header(50_000, 50_000), "2,500,000,000 pixels"),
    ],
)
def test_bad_image_is_named_with_its_file_and_row(tmp_path: Path, data: bytes | None, found: str) -> None:
    root = write_mevf(tmp_path, [rad_row(0), rad_row(1, "bad.jpg")])
    if data is not None:
        write_bytes(root / "images" / "bad.jpg", data)
    with pytest.raises(StudyError, match=rf"trainset.json, row 2, image .*bad.jpg: expected .*, found .*{found}"):
        read(root, frames=False)


def test_hugging_face_shards_are_one_split(tmp_path: Path) -> None:
    first, second = picture(1), picture(2)
    write_parquet(
        tmp_path / "data" / "train-00000-of-00002-abc.parquet", [(first, "a?", "YES "), (second, "b?", "mri")]
    )
    write_parquet(tmp_path / "data" / "train-00001-of-00002-abc.parquet", [(first, "c?", None), (first, "d?", "no")])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [(second, "e?", "yes, left")])
    source = read(tmp_path, frames=False)
    assert [(case.id, case.kind, case.answer) for case in source.cases] == [
        ("vqa-rad:train:0", "closed", "YES"),
        ("vqa-rad:train:1", "open", "mri"),
        ("vqa-rad:train:3", "closed", "no"),
        ("vqa-rad:test:0", "open", "yes, left"),
    ]
    assert [image.data for image in source.images] == [first, second]
    assert source.notes == {"rows without an answer left out": 1}


def test_missing_shard_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [(picture(), "a?", "yes")])
    with pytest.raises(StudyError, match=r"expected the 2 files of the train split .* found 1; restore"):
        read(tmp_path, frames=False)


@pytest.mark.parametrize(("data", "expected"), [(None, "image bytes"), (b"no image", "a whole image")])
def test_bad_image_in_a_parquet_row_is_named(tmp_path: Path, data: bytes | None, expected: str) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [(picture(), "a?", "yes"), (data, "b?", "no")])
    with pytest.raises(StudyError, match=rf"train-00000-of-00001.parquet, row 2: expected {expected}"):
        read(tmp_path, frames=False)


def test_missing_root_names_the_three_layouts(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"VQA_RAD Dataset Public.json.*trainset.json.*train-\*.parquet"):
        read(tmp_path, frames=False)
