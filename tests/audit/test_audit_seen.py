"""Test images that a base was trained on: how many, of how many, and nothing of few; keyed by the record alone."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from audit_samples import as_png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from test_audit_images import drawing

from flows.outside import outside
from tasks.audit.seen import seen_counts
from tasks.audit.step import audit_seen, count_seen, read_seen
from tasks.cases.seen import Sight, join, seen_images
from tasks.engine.identity import RECORD, choose_model, find_record
from tasks.features.step import see_images
from tasks.records import Caption, Case, Image, SeenImage, write_table
from tasks.settings import ModelSettings, Study
from tasks.store import Ref, writing

SIGHTS = st.lists(st.tuples(st.sampled_from(["identical", "alike", None]), st.integers(1, 4)), max_size=30)


def image(name: str, seed: int, side: int = 120) -> Image:
    levels = drawing(seed, (side, side))
    return Image(name, as_png(Pillow.fromarray(levels)), side, side)


def case(number: int, image_id: str, split: Any = "test") -> Case:
    return Case(f"d:{number}", image_id, "What?", "yes", "closed", split, "d", "en")


def asked(images: list[tuple[Sight | None, int]]) -> tuple[list[Case], dict[str, Sight]]:
    """Test cases about images, so many about each, and how each was seen."""
    cases = [case(10 * place + n, f"i{place}") for place, (_, count) in enumerate(images) for n in range(count)]
    return cases, {f"i{place}": sight for place, (sight, _) in enumerate(images) if sight}


def test_images_and_cases_are_counted() -> None:
    cases, found = asked([("identical", 2), ("alike", 3), (None, 1), ("identical", 1)])
    assert seen_counts(cases, found) == {
        "images": {"n": 4, "seen": 3, "identical": 2, "at_least": 3},
        "cases": {"n": 7, "seen": 6, "identical": 3, "at_least": 6},
    }
    assert seen_counts([], found)["images"] == {"n": 0, "seen": 0, "identical": 0, "at_least": 0}


@given(SIGHTS, st.integers(1, 6))
def test_nothing_is_told_of_few_nor_follows_by_subtraction(images: list[tuple[Sight | None, int]], least: int) -> None:
    cases, found = asked(images)
    told, whole = seen_counts(cases, found, least), seen_counts(cases, found)
    for name in ("images", "cases"):
        counts: Mapping[str, int | None] = told[name]  # type: ignore[literal-required]
        true: Mapping[str, int] = whole[name]  # type: ignore[literal-required]
        assert all(counts[each] in (None, true[each]) for each in ("n", "seen", "identical"))
        assert counts["at_least"] == max(counts["seen"] or 0, counts["identical"] or 0) <= true["at_least"]
        known = [counts[each] for each in ("n", "seen", "identical") if counts[each] is not None]
        differences = [abs(one - other) for one in [*known, 0] for other in [*known, 0]]  # type: ignore[operator]
        assert not any(0 < difference < least for difference in differences)


def test_all_is_told_where_no_count_is_small() -> None:
    cases, found = asked([("identical", 1)] * 5 + [("alike", 1)] * 5 + [(None, 1)] * 5)
    assert seen_counts(cases, found, 5) == seen_counts(cases, found)
    cases, found = asked([("identical", 1)] * 3 + [("alike", 1)] * 20 + [(None, 1)] * 70)
    assert seen_counts(cases, found, 5)["images"] == {"n": 93, "seen": 23, "identical": None, "at_least": 23}
    cases, found = asked([("alike", 1)] * 3 + [(None, 1)] * 57)
    assert seen_counts(cases, found, 5)["images"] == {"n": 60, "seen": None, "identical": 0, "at_least": 0}


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Ref]:
    """A hospital's cases, and a dataset of captions alone: of four test images each, and of one of training."""
    monkeypatch.chdir(tmp_path)
    images = [image(f"i{n}", n) for n in range(5)]
    cases = [case(n, f"i{n % 5}", "train" if n % 5 == 4 else "test") for n in range(10)]
    captions = [Caption(each.id, "text", "train" if each.id == "i4" else "test", "d", "en") for each in images]
    refs = {}
    for name, asks in (("cases", cases), ("captions", [])):
        with writing("source", name, "0") as folder:
            for file, record, rows in (
                ("cases", Case, asks),
                ("images", Image, images),
                ("captions", Caption, captions),
            ):
                with folder.open(f"{file}.parquet") as sink:
                    write_table(sink, record, rows)  # type: ignore[type-var]
        refs[name] = folder.ref
    return refs


def write_record(folder: Path, *images: Image) -> Path:
    """A base's record of images."""
    folder.mkdir(exist_ok=True)
    with (folder / RECORD).open("wb") as sink:
        write_table(sink, SeenImage, join(seen_images(images, {each.id: "public" for each in images})))
    return folder / RECORD


def test_a_hospital_and_the_audit_count_the_same_images(held: dict[str, Ref], tmp_path: Path) -> None:
    record = write_record(tmp_path / "base", image("x", 0), image("y", 1, 60), image("z", 4), image("other", 9))
    given = {"record": str(record), "content": "abc"}
    counted = count_seen.fn(hospital="north", cases=held["cases"], min_cell=1, **given)
    images = {"n": 4, "seen": 2, "identical": 1, "at_least": 2}
    cases = {"n": 8, "seen": 4, "identical": 2, "at_least": 4}
    assert json.loads((counted.folder / "seen.json").read_text()) == {
        "hospital": "north",
        "record": "abc",
        "images": images,
        "cases": cases,
    }
    assert counted.path.startswith("shared/seen/") and counted.manifest()["leaves"] == ["counts"]
    audited = read_seen(audit_seen.fn(cases=held["cases"], dataset=held["cases"], **given))
    ids = ["d:0", "d:1", "d:5", "d:6"]
    assert audited == {"record": "abc", "images": images, "cases": cases, "test_cases": ids}
    of_captions = read_seen(audit_seen.fn(cases=held["captions"], dataset=held["captions"], **given))
    assert (of_captions["cases"]["n"], of_captions["test_cases"]) == (4, ["i0", "i1"])
    few = count_seen.fn(hospital="north", cases=held["cases"], min_cell=5, **given)
    assert json.loads((few.folder / "seen.json").read_text())["images"]["seen"] is None


def test_a_record_changes_the_key_of_what_reads_it_and_of_nothing_else(
    held: dict[str, Ref], tiny_folder: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    study = Study(model=ModelSettings(name=str(base)))

    def keys() -> dict[str, str]:
        model = choose_model(study.model)
        place, content = find_record(study.model.name) or ("", "")
        counting: dict[str, Any] = {"hospital": "north", "cases": held["cases"], "min_cell": 5}
        calls = {
            "seen": count_seen.cache_key_fn(None, {**counting, "record": place, "content": content}),  # type: ignore
            "vision": see_images.cache_key_fn(None, {"images": held["cases"], "model": model, "projected": True}),  # type: ignore
        }
        return {name: str(each) for name, each in calls.items()}

    assert find_record(study.model.name) is None
    found, worlds = [keys()], [outside(study)]
    for images in ([image("a", 0)], [image("a", 0), image("b", 1)]):
        write_record(base, *images)
        found.append(keys())
        worlds.append(outside(study))
    assert len({each["seen"] for each in found}) == 3
    assert len({each["vision"] for each in found}) == 1
    assert len({json.dumps(each) for each in worlds}) == 3  # so a comparison runs its studies again
    assert {each["model"]["content"] for each in worlds} == {worlds[0]["model"]["content"]}
    write_record(base, image("renamed", 0), image("too", 1))
    assert keys() == found[2]


def test_the_embedded_base_and_models_of_the_hub_have_no_record() -> None:
    assert find_record("embedded") is None
    assert find_record("some/model") is None
