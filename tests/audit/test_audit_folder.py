"""Images of a folder that a dataset is held against: which are read, and which copies of the dataset's are told."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from audit_samples import as_png, find
from test_audit_images import drawing, image

from tasks.audit.document import inside
from tasks.audit.fingerprint import fingerprints
from tasks.audit.folder import PREFIX, SUFFIXES, folder_images
from tasks.audit.pairs import whole_shapes
from tasks.errors import StudyError
from tasks.records import ImagePair
from tasks.records.shapes import coarse


def test_every_image_below_the_folder_is_read_in_the_order_of_its_path(tmp_path: Path) -> None:
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}
    for place, suffix in enumerate(sorted(SUFFIXES)):
        path = tmp_path / f"deep/{9 - place}" / f"scan{suffix.upper() if place % 2 else suffix}"
        path.parent.mkdir(parents=True)
        PIL.Image.fromarray(drawing(place, (30 + place, 20))).save(path, formats.get(suffix))
    (tmp_path / "deep" / "notes.txt").write_text("no image")
    found = list(folder_images(tmp_path))
    assert [each.id for each in found] == sorted(
        f"{PREFIX}{path.relative_to(tmp_path)}" for path in tmp_path.rglob("scan*")
    )
    assert len(found) == len(SUFFIXES)
    for each in found:
        path = tmp_path / each.id.removeprefix(PREFIX)
        assert each.data == path.read_bytes()
        with PIL.Image.open(path) as opened:
            assert (each.width, each.height) == opened.size


def test_a_folder_without_images_and_a_broken_image_are_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "notes.txt"):
        with pytest.raises(StudyError, match=rf"^Expected a folder of images in --against, found none in {folder}: "):
            list(folder_images(folder))
    (tmp_path / "cut.png").write_bytes(as_png(PIL.Image.fromarray(drawing(1)))[:200])
    with pytest.raises(
        StudyError, match=r"^Expected a whole image at .*cut\.png, found .*: restore or remove the file\.$"
    ):
        list(folder_images(tmp_path))


def test_copies_across_are_told_with_the_datasets_image_first() -> None:
    pairs = [
        ImagePair("a", "against:x", "near_duplicate", 0.9),
        ImagePair("a", "against:y", "flipped", 0.9),
        ImagePair("against:z", "zz", "near_duplicate", 0.9),
        ImagePair("a", "b", "identical_bytes", 1.0),
        ImagePair("against:x", "against:y", "flipped", 0.9),
    ]
    assert inside(pairs) == {
        "n": 2,
        "pairs": {"flipped": 1, "near_duplicate": 2},
        "found": [
            {"image": "a", "in_folder": "against:x", "relation": "near_duplicate"},
            {"image": "a", "in_folder": "against:y", "relation": "flipped"},
            {"image": "zz", "in_folder": "against:z", "relation": "near_duplicate"},
        ],
    }
    assert inside(pairs[3:]) == {"n": 0, "pairs": {}, "found": []}


def test_one_image_and_images_unlike_each_other_make_no_pair() -> None:
    assert find([image("a", drawing(1))]) == []
    assert find([image("a", drawing(1)), image("b", drawing(2)), image("blank", np.full((9, 9), 3, np.uint8))]) == []


def test_the_shape_of_an_image_is_that_of_all_of_it() -> None:
    """Unit rows, near for a copy and far for another image; none for a blank one."""
    images = [image("a", drawing(1)), image("copy", drawing(1, (240, 200))), image("b", drawing(2))]
    prints = list(fingerprints([*images, image("blank", np.full((20, 30), 7, np.uint8))]))
    shapes = whole_shapes(prints)
    assert set(shapes) == {"a", "copy", "b"}
    for each in prints[:3]:
        np.testing.assert_array_equal(shapes[each.image_id], coarse(each.pictures[:1])[0])
        np.testing.assert_allclose(np.linalg.norm(shapes[each.image_id]), 1, atol=1e-5)
    assert shapes["a"] @ shapes["copy"] > 0.98 > 0.9 > shapes["a"] @ shapes["b"]
    assert whole_shapes(prints[3:]) == {}
