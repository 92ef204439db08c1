"""Datasets by name, and what every reader's source must hold."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ingest_samples import (
    osf_row,
    picture,
    rad_row,
    real,
    slake_row,
    write_bytes,
    write_mevf,
    write_osf,
    write_parquet,
    write_slake,
)

from tasks.errors import StudyError
from tasks.ingest.datasets import DATASETS, Options, ingest, state
from tasks.ingest.images import Images
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.source import Source, check, gather, summarise
from tasks.records import Case, Image

MADE = "cases made into a test split"


def load(name: str, root: Path | None = None, **settings: Any) -> Source:
    return several((name, root), **settings)


def case(case_id: str, image: str = "i", **fields: Any) -> Case:
    return dataclasses.replace(Case(case_id, image, "q", "a", "open", "train", "d", "en"), **fields)


ONE = Images([Image("i", b"", 1, 1)])


def images_of(source: Source, split: str) -> set[str]:
    return {case.image_id for case in source.cases if case.split == split}


def test_real_osf_gets_a_disjoint_test_split() -> None:
    source = load("vqa-rad", real("vqa-rad-osf"))
    assert len(source.cases) == 1797
    assert len(images_of(source, "test")) == 63  # 20 % of 313
    assert images_of(source, "test").isdisjoint(images_of(source, "train"))
    groups = {case.group for case in source.cases if case.split == "test"}
    assert groups.isdisjoint(case.group for case in source.cases if case.split == "train")
    assert source.notes[MADE] == sum(case.split == "test" for case in source.cases)


def test_real_slake_gets_a_test_split_that_is_disjoint_across_languages() -> None:
    source = load("slake", real("slake"), language="all")
    assert len(images_of(source, "test")) == 126  # 20 % of 630
    assert images_of(source, "test").isdisjoint(images_of(source, "train") | images_of(source, "validation"))
    assert sum(summarise(source)["split"].values()) == 11_933


def several(*named: tuple[str, Path | None], **settings: Any) -> Source:
    values = {
        "language": "en",
        "frames": False,
        "test": "published",
        "test_fraction": 0.2,
        "images": 5,
        "max_rejected": 0.01,
        "seed": 0,
    }
    return ingest(named, Options(**(values | settings)))  # type: ignore[arg-type]


def test_several_datasets_are_one_and_each_case_names_its_own(tmp_path: Path) -> None:
    rad = write_mevf(tmp_path / "rad", [rad_row(0), rad_row(1)], [rad_row(2, "synpic2.jpg")])
    slake = write_slake(tmp_path / "slake", train=[slake_row(0), slake_row(1, 2)], test=[slake_row(2, 3)])
    source = several(("vqa-rad", rad), ("slake", slake), ("phantom", None), ("phantom-public", None))
    check(source)
    alone = {name: load(name) for name in ("phantom", "phantom-public")}
    assert summarise(source)["dataset"] == {
        "phantom": sum(len(each.cases) for each in alone.values()),
        "slake": 3,
        "vqa-rad": 3,
    }
    assert {case.id for case in source.cases} >= {"vqa-rad:0", "slake:0", "phantom:site-1-00000:0"}
    assert {"vqa-rad/synpic1", "slake/xmlab1", "phantom/site-1-00000", "phantom-public/public-00000"} <= {
        image.id for image in source.images
    }
    assert {finding.image_id for finding in source.findings} <= {image.id for image in source.images}
    assert len(source.captions) == sum(len(each.captions) for each in alone.values())


def test_real_datasets_lose_nothing_together() -> None:
    both = several(("vqa-rad", real("vqa-rad-osf")), ("medpix", real("medpix-2.0")))
    alone = load("vqa-rad", real("vqa-rad-osf")), load("medpix", real("medpix-2.0"))
    assert len(both.cases) == len(alone[0].cases)
    assert {each.image_id for each in both.captions} == {f"medpix/{each.image_id}" for each in alone[1].captions}
    assert len(both.images) == sum(len(each.images) for each in alone)


def test_captions_alone_are_accepted_and_get_a_test_split() -> None:
    source = load("medpix", real("medpix-2.0"))
    groups = {split: {each.group for each in source.captions if each.split == split} for split in ("train", "test")}
    assert source.cases == []
    assert groups["train"]
    assert groups["test"]
    assert groups["train"].isdisjoint(groups["test"])


def test_a_hub_dataset_is_found_where_it_was_downloaded_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "datasets--flaviagiammarino--path-vqa"
    commit = "0123456789abcdef0123456789abcdef01234567"
    write_bytes(repository / "refs" / "main", commit.encode())
    rows = [(picture(number), f"{number}?", "yes") for number in range(5)]
    write_parquet(repository / "snapshots" / commit / "data" / "train-00000-of-00001.parquet", rows)  # type: ignore[arg-type]
    source = load("path-vqa")
    assert len(source.cases) == 5
    assert summarise(source)["revisions"] == {"path-vqa": commit}
    assert state("path-vqa", None) == commit


def test_published_test_split_is_left_alone(tmp_path: Path) -> None:
    root = write_mevf(tmp_path, [rad_row(0), rad_row(1, "synpic2.jpg")], [rad_row(2, "synpic2.jpg")])
    source = load("vqa-rad", root)
    assert [case.split for case in source.cases] == ["train", "train", "test"]
    assert MADE not in source.notes


def test_phantom_public_stays_a_training_set() -> None:
    assert summarise(load("phantom-public"))["split"].keys() == {"train"}


def test_phantom_is_repeatable() -> None:
    assert load("phantom") == load("phantom")


def test_unknown_name_is_refused() -> None:
    with pytest.raises(StudyError, match=r"phantom, phantom-public, phantom-terms, vqa-rad, slake, .*, found 'vqarad'"):
        load("vqarad")


@pytest.mark.parametrize("name", [name for name, each in DATASETS.items() if not each.drawn])
def test_missing_root_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StudyError, match=rf"^dataset.root: expected the {name} dataset.* found no folder.*; set"):
        load(name)


def test_dataset_whose_rows_were_all_left_out_is_refused(tmp_path: Path) -> None:
    root = write_mevf(tmp_path, [rad_row(0, phrase_type="frame")])
    with pytest.raises(StudyError, match="none among 0 cases, frame rows of the train set left out: 1; complete"):
        load("vqa-rad", root)
    with pytest.raises(StudyError, match="none among 0 cases, rows in another language left out: 1; complete"):
        load("slake", write_slake(tmp_path, train=[slake_row(1)]), language="zh")


def test_one_image_is_too_few_for_a_test_split(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="at least 2 unrelated images"):
        load("vqa-rad", write_osf(tmp_path, [osf_row(0), osf_row(1)]))


def test_each_image_is_read_once_however_many_rows_name_it() -> None:
    read: list[int] = []

    def read_picture(row: Row) -> Picture:
        read.append(row.number)
        return read_image(picture(row.number), row.where)

    def make(row: Row) -> Case:
        return case(f"d:{row.number}", f"image{row.number % 3}", question=f"{row.number}?")

    source = gather(Path(), [Row(Path("f"), number, {}) for number in range(1, 31)], make, read_picture)
    assert read == [1, 2, 3]
    assert [found.id for found in source.images] == ["image1", "image2", "image0"]


def test_check_accepts_a_sound_source_and_refuses_others() -> None:
    check(Source([case("d:1"), case("d:2")], ONE))
    with pytest.raises(StudyError, match="Expected training cases, found none among 0 cases"):
        check(Source([], Images()))
    with pytest.raises(StudyError, match="none among 1 cases"):
        check(Source([case("d:1", split="test")], ONE))
    with pytest.raises(StudyError, match="found one for cases 2, 3; rename"):
        check(Source([case("d:2"), case("d:1"), case("d:1")], ONE))
    with pytest.raises(StudyError, match="an image for case 2 of 2, found none"):
        check(Source([case("d:1"), case("d:2", "j")], ONE))


def test_summary_counts_every_case_once() -> None:
    cases = [case("d:1", organ="head"), case("d:2", organ="head", kind="closed"), case("d:3", split="test")]
    assert summarise(Source(cases, ONE, notes={"left out": 4})) == {
        "cases": 3,
        "images": 1,
        "findings": 0,
        "captions": 0,
        "rejected": 0,
        "dataset": {"d": 3},
        "split": {"test": 1, "train": 2},
        "kind": {"closed": 1, "open": 2},
        "modality": {"not stated": 3},
        "organ": {"head": 2, "not stated": 1},
        "language": {"en": 3},
        "captions_by_split": {},
        "notes": {"left out": 4},
        "revisions": {},
    }


def test_the_validation_split_of_real_slake_serves_as_test() -> None:
    source = load("slake", real("slake"), test="validation")
    published = load("slake", real("slake"))
    assert Counter(case.split for case in source.cases) == {"train": 4918, "test": 1053}
    assert images_of(source, "test").isdisjoint(images_of(source, "train"))
    assert {case.id for case in source.cases} == {case.id for case in published.cases}
