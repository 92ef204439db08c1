"""The negative control: how many unrelated images lie as near to training, beside a search of every pair."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_samples import find
from hypothesis import given, settings
from hypothesis import strategies as st
from test_audit_document import caption, case
from test_audit_images import drawing, image

from tasks.audit.control import PREFIX, beside_control, control_sentence, control_table, split_images, withhold
from tasks.audit.fingerprint import fingerprints
from tasks.audit.pairs import image_pairs
from tasks.audit.step import audit, audit_control, read_control
from tasks.records import Caption, Case, Image, ImagePair, write_table
from tasks.records.pixels import pixel_digest
from tasks.store import Ref, writing


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def levels(seed: int, *, contrast: float = 1.0, mirrored: bool = False) -> np.ndarray:
    """Levels of a drawing, or of a copy of it."""
    changed = np.rint(255 * (drawing(seed) / 255) ** contrast).astype(np.uint8)
    return np.ascontiguousarray(changed[:, ::-1] if mirrored else changed)


TRAIN = {f"train-{seed}": levels(seed) for seed in range(4)}
TEST = {"test-copy": levels(0, contrast=0.7), "test-new": levels(20), "test-mirrored": levels(1, mirrored=True)}
UNUSED = {"validation": levels(21)}
CONTROL = {
    "same": levels(2),
    "near-train": levels(3, contrast=1.4),
    "near-train-too": levels(0, contrast=1.4),
    "mirrored-train": levels(1, contrast=0.8, mirrored=True),
    "near-test": levels(20, contrast=0.7),
    "near-validation": levels(21, contrast=0.7),
    "alone": levels(30),
}


def alike(first: np.ndarray, second: np.ndarray) -> str:
    """The relation of two pictures of one size, by the correlation of all their pixels: no part of the audit."""
    if np.array_equal(first, second):
        return "same_image"
    turned = {"near_duplicate_image": [second], "flipped_image": [second[:, ::-1], second[::-1], second[::-1, ::-1]]}
    for relation, views in turned.items():
        if max(np.corrcoef(first.ravel(), view.ravel())[0, 1] for view in views) > 0.95:
            return relation
    return ""


def counted(images: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many images have each relation to a training image: every pair is compared."""
    near = [{alike(one, other) for other in TRAIN.values()} for one in images.values()]
    relations = ("same_image", "near_duplicate_image", "flipped_image")
    return {relation: sum(relation in each for each in near) for relation in relations}


def dataset(stage: str, images: Mapping[str, np.ndarray], captions: bool = False) -> Ref:
    """An ingested dataset in which each image has one case, or one caption; its split is the first part of its name."""
    splits = {name: name.split("-")[0] for name in images}
    cases = [case(f"d:{name}", name, split) for name, split in splits.items()]
    with writing("source", "ingest", stage) as folder:
        with folder.open("cases.parquet") as sink:
            write_table(sink, Case, [] if captions else cases)
        with folder.open("captions.parquet") as sink:
            write_table(sink, Caption, [caption(name, split) for name, split in splits.items()] if captions else [])
        with folder.open("images.parquet") as sink:
            write_table(sink, Image, [image(name, each) for name, each in images.items()])
    return folder.ref


def held_against(
    control: Mapping[str, np.ndarray], captions: bool = False, test: Mapping[str, np.ndarray] = TEST
) -> dict[str, Any]:
    """The document of a control, by the stages."""
    ours, theirs = dataset("ours", TRAIN | test | UNUSED, captions), dataset("theirs", control)
    findings = audit.fn(cases=ours, dataset=ours, seed=0)
    found = read_control(audit_control.fn(cases=ours, dataset=ours, findings=findings, control=theirs, name="theirs"))
    assert found
    return found


@pytest.mark.parametrize("captions", [False, True], ids=["cases", "captions"])
def test_the_counts_are_those_of_a_search_of_every_pair(captions: bool) -> None:
    found = held_against(CONTROL, captions)
    for side, images in (("test_images", TEST), ("control_images", CONTROL)):
        counts = {name: each["n"] for name, each in found[side].items() if name != "n"}
        assert counts == counted(images), side
        assert found[side]["n"] == len(images)
    # What the pictures were made for, so that the search of every pair is not empty itself.
    assert counted(CONTROL) == {"same_image": 1, "near_duplicate_image": 2, "flipped_image": 1}
    assert counted(TEST) == {"same_image": 0, "near_duplicate_image": 1, "flipped_image": 1}
    near = {name for name, *_ in found["examples"]}
    assert near == {PREFIX + name for name in ("same", "near-train", "near-train-too", "mirrored-train")}


def test_a_control_of_the_test_images_themselves_lies_as_near_as_they_do() -> None:
    """It takes their place: the same measure, among the same others."""
    found = held_against(TEST)
    assert found["control_images"] == found["test_images"]


def test_test_images_do_not_crowd_out_what_lies_near_the_control() -> None:
    """Each image is aligned with its likeliest candidates alone: these places are not for test images."""
    nearest = {f"test-{n}-{side}": levels(0, contrast=side + n / 100) for n in range(1, 25) for side in (1, 1.6)}
    control = {"near": levels(0, contrast=1.6)}
    assert held_against(control, test=nearest)["control_images"] == held_against(control)["control_images"]


def test_ids_of_the_control_may_be_those_of_the_dataset() -> None:
    found = held_against({"train-0": levels(30), "test-copy": levels(0, contrast=1.4)})
    assert found["control_images"]["near_duplicate_image"]["n"] == 1


PICTURES = [image(name, each) for name, each in (TRAIN | TEST | UNUSED | CONTROL).items()]
PICTURES += [replace(PICTURES[0], id="same-file"), replace(PICTURES[8], id="another-of-the-same")]
PRINTS = list(fingerprints(PICTURES))
PAIRS = find(PICTURES)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from([each.id for each in PICTURES])))
def test_pairs_among_some_images_are_those_of_all_with_one_of_them(wanted: set[str]) -> None:
    data = {each.id: each.data for each in PICTURES}
    found = image_pairs(PRINTS, lambda some: {name: pixel_digest(data[name]) for name in some}, among=wanted)
    assert found == [pair for pair in PAIRS if {pair.image_a, pair.image_b} & wanted]


def test_an_image_that_training_has_too_stays_beside_the_control() -> None:
    cases = [case("d:1", "a", "train"), case("d:2", "a", "test"), case("d:3", "b", "test"), case("d:4", "c", "test")]
    cases += [case("d:5", "c", "validation"), case("d:6", "e", "train")]
    assert split_images(cases) == ({"a", "e"}, {"a", "b", "c"}, {"b"})


CASES = [case("d:1", "a", "train"), case("d:2", "b", "test")]


def document(near: int, of: int) -> dict[str, Any]:
    """A control of which as many images are near-duplicates."""
    control = [f"{PREFIX}{number}" for number in range(of)]
    pairs = [ImagePair("a", name, "near_duplicate", 0.9) for name in control[:near]]
    return beside_control(CASES, [ImagePair("a", "b", "near_duplicate", 0.9)], control, pairs, "theirs")


def test_a_row_shows_both_sides_with_their_intervals() -> None:
    found = document(2, 20)
    assert found["control_images"]["near_duplicate_image"]["rate"] == 0.1
    only_tests = beside_control(CASES, [], ["x"], [ImagePair("b", "x", "near_duplicate", 0.9)], "theirs")
    assert only_tests["control_images"]["near_duplicate_image"]["n"] == 0
    row = control_table(found)[1]
    assert row == {
        "relation": "near duplicate image",
        "test images": "1 of 1 (1.000 [0.025, 1.000])",
        "control images": "2 of 20 (0.100 [0.012, 0.317])",
    }
    sentence = control_sentence(found)
    assert row["test images"] in sentence
    assert f"{row['control images']} images of theirs" in sentence


def test_small_counts_are_withheld_with_their_shares_and_examples() -> None:
    found = withhold(document(2, 20), 5)
    assert "examples" not in found
    small = {"n": "withheld", "rate": None, "interval": None}
    assert found["control_images"]["near_duplicate_image"] == small
    assert found["control_images"]["flipped_image"]["n"] == 0
    assert found["test_images"] == {"n": "withheld"} | dict.fromkeys(
        ("same_image", "near_duplicate_image", "flipped_image"), small
    )
    assert control_table(found)[1]["control images"] == "withheld of 20"
    assert withhold(document(6, 20), 5)["control_images"] == document(6, 20)["control_images"]


def test_without_a_control_it_is_said_how_to_name_one() -> None:
    assert control_table(None) == []
    assert "audit.control" in control_sentence(None)
    assert read_control(None) is None


def test_without_a_test_image_there_is_no_share() -> None:
    found = beside_control([case("d:1", "a", "train")], [], ["x"], [], "theirs")
    assert found["test_images"]["near_duplicate_image"] == {"n": 0, "rate": None, "interval": None}
    assert control_table(found)[1]["test images"] == "0 of 0"
