"""SLAKE: the real files, and each of their traps in the small."""

import io
import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from ingest_samples import real, slake_row, write_slake

from tasks.errors import StudyError
from tasks.ingest.slake import read
from tasks.ingest.source import Source

EMPTY = "rows without an answer left out"
LEAKED = "rows left out whose image has a test case"


@pytest.fixture(scope="module")
def everything() -> Source:
    return read(real("slake"), language="all")


def counts(source: Source, *names: str) -> Counter[Any]:
    return Counter(tuple(getattr(case, name) for name in names) for case in source.cases)


def test_real_counts_in_both_languages(everything: Source) -> None:
    expected: Counter[Any] = Counter()
    for name, split in (("train.json", "train"), ("validate.json", "validation")):
        for row in json.loads((real("slake") / name).read_text(encoding="utf-8")):
            expected[split, row["q_lang"], row["answer_type"].lower()] += row["answer"] != ""
    assert counts(everything, "split", "language", "kind") == expected
    assert counts(everything, "split", "language") == {
        ("train", "en"): 4918,
        ("train", "zh"): 4916,
        ("validation", "en"): 1053,
        ("validation", "zh"): 1046,
    }
    assert counts(everything, "modality") == {("ct",): 5773, ("x-ray",): 3474, ("mri",): 2686}
    assert len(everything.images) == 630
    assert everything.notes[EMPTY] == 1


def test_real_english_counts() -> None:
    source = read(real("slake"), language="en")
    assert counts(source, "split", "kind") == {
        ("train", "closed"): 1943,
        ("train", "open"): 2975,
        ("validation", "closed"): 422,
        ("validation", "open"): 631,
    }
    images = {
        split: {case.image_id for case in source.cases if case.split == split} for split in ("train", "validation")
    }
    assert (len(images["train"]), len(images["validation"])) == (450, 96)
    assert images["train"].isdisjoint(images["validation"])
    assert counts(source, "organ")[("brain tissue",)] == 864
    assert all("_" not in case.organ and case.organ == case.organ.lower() for case in source.cases if case.organ)


def test_real_empty_answer_is_left_out(everything: Source) -> None:
    assert "slake:1622" not in {case.id for case in everything.cases}


def test_fields_are_normalised(tmp_path: Path) -> None:
    rows = [slake_row(5, 2, answer="Left Lung,  Right ", answer_type="CLOSED ", location=None)]
    (case,) = read(write_slake(tmp_path, train=rows), language="en").cases
    assert (case.id, case.image_id, case.answer, case.kind) == ("slake:5", "xmlab2", "Left Lung, Right", "closed")
    assert (case.modality, case.organ, case.topic) == ("x-ray", None, "Organ")


@pytest.mark.parametrize("name", ["validate", "validation"])
def test_validation_file_has_two_names(tmp_path: Path, name: str) -> None:
    root = write_slake(tmp_path, train=[slake_row(1, 1)], **{name: [slake_row(2, 2)]}, test=[slake_row(3, 3)])
    assert [case.split for case in read(root, language="en").cases] == ["train", "validation", "test"]


def test_language_chooses_the_rows_and_the_images(tmp_path: Path) -> None:
    root = write_slake(tmp_path, train=[slake_row(1, 1), slake_row(2, 2, q_lang="zh", question="肺 在哪?")])
    source = read(root, language="zh")
    assert [(case.id, case.language, case.question) for case in source.cases] == [("slake:2", "zh", "肺 在哪?")]
    assert [image.id for image in source.images] == ["xmlab2"]


def test_test_image_of_one_language_leaves_the_other_languages_training(tmp_path: Path) -> None:
    root = write_slake(
        tmp_path,
        train=[slake_row(1, 1), slake_row(2, 2, q_lang="zh"), slake_row(3, 3, q_lang="zh")],
        validate=[slake_row(4, 2, q_lang="zh")],
        test=[slake_row(5, 2), slake_row(6, 3)],
    )
    both = read(root, language="all")
    assert [case.id for case in both.cases] == ["slake:1", "slake:5", "slake:6"]
    assert both.notes == {LEAKED: 3}
    assert read(root, language="en").notes == {"rows in another language left out": 3}
    assert len(read(root, language="zh").cases) == 3


def test_missing_train_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"expected the slake dataset with one of `train.json`, found none of them"):
        read(write_slake(tmp_path, test=[slake_row(1)]), language="en")


@pytest.mark.parametrize("field", ["qid", "img_name", "q_lang", "location", "modality", "content_type", "answer"])
def test_row_that_lacks_a_field_is_named(tmp_path: Path, field: str) -> None:
    rows = [slake_row(1), slake_row(2)]
    del rows[1][field]
    with pytest.raises(StudyError, match=rf"train.json, row 2: expected a field '{field}'"):
        read(write_slake(tmp_path, train=rows), language="en")


def test_duplicate_qid_is_refused_across_files(tmp_path: Path) -> None:
    root = write_slake(tmp_path, train=[slake_row(1)], test=[slake_row(2), slake_row(1)])
    with pytest.raises(
        StudyError, match=r"test.json, row 2: expected an id of its own, found 'slake:1'.*train.json, row 1"
    ):
        read(root, language="en")


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "xmlab1/../../../x.jpg"])
def test_image_name_that_leaves_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyError, match=r"train.json, row 1: expected a file inside"):
        read(write_slake(tmp_path, train=[slake_row(1, img_name=name)]), language="en")


def test_missing_image_is_named_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"train.json, row 2, image .*xmlab9/source.jpg: .* found no such file"):
        read(write_slake(tmp_path, train=[slake_row(1), slake_row(2, 9)]), language="en")


def test_boxes_beside_the_images_are_findings(tmp_path: Path) -> None:
    """Each is drawn here pixel by pixel; one leaves the image, one lies outside of it."""
    root = write_slake(tmp_path, train=[slake_row(0), slake_row(1, 2), slake_row(2, 3)])
    sizes = {image.id: (image.height, image.width) for image in read(root, language="en").images}
    height, width = sizes["xmlab1"]
    boxes = [{"Left Lung": [2.0, 3.0, 4.0, 5.0]}, {"Heart": [width - 2.0, -1.0, 9.0, 3.0]}, {"Liver": [900, 900, 5, 5]}]
    (root / "imgs/xmlab1/detection.json").write_text(json.dumps(boxes))
    (root / "imgs/xmlab2/detection.json").write_text('{"no": "boxes"}')
    source = read(root, language="en")
    assert [(each.image_id, each.name) for each in source.findings] == [("xmlab1", "Left Lung"), ("xmlab1", "Heart")]
    expected = np.zeros((2, height, width), int)
    for y, x in product(range(height), range(width)):
        expected[0, y, x] = 255 * (2 <= x < 6 and 3 <= y < 8)
        expected[1, y, x] = 255 * (width - 2 <= x and y < 2)
    for mask, each in zip(expected, source.findings, strict=True):
        assert (np.asarray(PIL.Image.open(io.BytesIO(each.mask))) == mask).all()
    assert source.notes["files of boxes that could not be read"] == 1
    assert not read(write_slake(tmp_path / "without", train=[slake_row(0)]), language="en").findings
