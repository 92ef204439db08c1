"""Hospitals find the test images that others train on, by digests that tell the coordinator nothing."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flows.compared_images import ComparedImages
from flows.sum_keys import make_sum_key
from tasks.errors import StudyError
from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.images_by_link import compare_images
from tasks.federate.remote.parcel import Parcel, linked
from tasks.federate.remote.shared_images import LENGTH, ImageComparison
from tasks.ingest import phantom
from tasks.records import Case, Image, Split, write_table
from tasks.records.look import UNSURE, look
from tasks.records.pixels import pixel_digest
from tasks.settings import Study
from tasks.settings.hospital import HospitalSettings

NAMES = ("east", "north", "south")
IMAGES = phantom.read(images=10, seed=3, public=False, test_fraction=0.2).images


def again(image: Image, size: float = 1, light: float = 1, kind: str = "PNG") -> Image:
    """A copy in another size, brightness or format."""
    picture = PIL.Image.open(io.BytesIO(image.data)).convert("L")
    picture = picture.resize([round(side * size) for side in picture.size]).point(lambda level: level * light)
    sink = io.BytesIO()
    picture.save(sink, kind)
    return Image(f"copy of {image.id}", sink.getvalue(), *picture.size)


COPIES: dict[str, dict[str, Any]] = {
    "smaller": {"size": 0.7},
    "darker": {"light": 0.7},
    "JPEG": {"kind": "JPEG"},
    "all of it": {"size": 0.8, "light": 0.9, "kind": "JPEG"},
}


@pytest.mark.parametrize("change", COPIES)
def test_most_copies_look_alike_and_hardly_any_other_image(change: str) -> None:
    looks = [look(image.data) for image in IMAGES]
    copies = [look(again(image, **COPIES[change]).data) for image in IMAGES]
    found = [bool(one and other and one.bits in other.likely) for one, other in zip(looks, copies, strict=True)]
    assert sum(found) >= 0.8 * len(IMAGES)
    others = [
        one.bits in other.likely
        for place, one in enumerate(looks)
        for another, other in enumerate(copies)
        if one and other and place != another
    ]
    assert sum(others) <= 0.02 * len(others)


def test_a_look_is_of_eight_bytes_and_likely_ones_turn_few_bits() -> None:
    found = look(IMAGES[0].data)
    assert found and len(found.likely) == len(set(found.likely)) == 2**UNSURE
    bits = [int.from_bytes(each, "big") ^ int.from_bytes(found.bits, "big") for each in found.likely]
    assert {each.bit_count() for each in bits} == set(range(UNSURE + 1))
    blank = np.full((40, 30), 7, np.uint8)
    sink = io.BytesIO()
    PIL.Image.fromarray(blank).save(sink, "PNG")
    assert look(sink.getvalue()) is None


def identities() -> tuple[dict[str, Ed25519PrivateKey], dict[str, bytes]]:
    private = {name: Ed25519PrivateKey.generate() for name in NAMES}
    return private, {name: key.public_key().public_bytes_raw() for name, key in private.items()}


def comparisons(session: str = "one") -> dict[str, ImageComparison]:
    private, public = identities()
    return {
        name: ImageComparison(name, private[name], {each: key for each, key in public.items() if each != name}, session)
        for name in NAMES
    }


def test_each_receiver_finds_its_own_test_images_alone() -> None:
    here = comparisons()
    keys = {name: each.introduction for name, each in here.items()}
    training = {"east": IMAGES[:3], "north": [again(IMAGES[3], light=0.9), IMAGES[4]], "south": IMAGES[5:7]}
    marks = {name: each.marks(keys, training[name]) for name, each in here.items()}
    test = [IMAGES[1], IMAGES[3], IMAGES[9]]
    found = here["south"].found({name: marks[name]["south"] for name in ("east", "north")}, test)
    assert found == {"east": [IMAGES[1].id], "north": [IMAGES[3].id]}  # the darker copy by its look
    assert not any(here["east"].found({"north": marks["north"]["east"]}, [IMAGES[9]]).values())


def test_nothing_that_travels_can_be_compared_without_a_key() -> None:
    """The same image has other digests for each pair and direction, and in each comparison; none is a plain one."""
    seen: list[bytes] = []
    for session in ("one", "two"):
        here = comparisons(session)
        keys = {name: each.introduction for name, each in here.items()}
        for each in here.values():
            for made in each.marks(keys, [IMAGES[0], IMAGES[0]]).values():
                assert len(made) == 2 * LENGTH  # of its pixels and its look, once
                seen += [made[:LENGTH], made[LENGTH:]]
    assert len(set(seen)) == len(seen) == 2 * 6 * 2
    shown = look(IMAGES[0].data)
    assert shown and not any(pixel_digest(IMAGES[0].data)[:LENGTH] == each or shown.bits in each for each in seen)


def test_a_coordinator_in_a_hospitals_place_gets_nothing() -> None:
    here, strangers = comparisons(), comparisons()
    keys = {name: each.introduction for name, each in here.items()}
    for false in (
        strangers["north"].introduction,  # another key, signed by another
        replace(keys["north"], public=strangers["north"].introduction.public),
        comparisons("two")["north"].introduction,
        replace(keys["north"], signature="no number"),
    ):
        with pytest.raises(NotAgreedError, match="a key that north signed"):
            here["south"].marks(keys | {"north": false}, IMAGES)
    with pytest.raises(NotAgreedError, match="hospitals whose keys south has, to compare images with, found west"):
        here["south"].marks(keys | {"west": keys["east"]}, IMAGES)
    here["south"].marks(keys, [])
    for wrong in ({"west": b""}, {"north": b"0" * (LENGTH + 1)}):
        with pytest.raises(NotAgreedError, match="digests of images of hospitals that were introduced"):
            here["south"].found(wrong, IMAGES)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hospitals keep what they found."""
    monkeypatch.chdir(tmp_path)


class Hospitals:
    """A link to hospitals in this process."""

    def __init__(self, folder: Path, least: int) -> None:
        self.study = Study.model_validate(
            {"federation": {"compare_images": True, "runtime": "flower"}, "evaluation": {"min_cell": least}}
        )
        for name in NAMES:
            make_sum_key(folder / name / "sum.key", name)
        self.there, self.cases = {}, {name: folder / name for name in NAMES}
        for name in NAMES:
            (folder / name / "others").mkdir(exist_ok=True)
            for other in set(NAMES) - {name}:
                key = (folder / other / "sum.key.pub").read_bytes()
                (folder / name / "others" / f"{other}.pub").write_bytes(key)
            sums = {"key": str(folder / name / "sum.key"), "others": str(folder / name / "others")}
            self.there[name] = ComparedImages(HospitalSettings.model_validate({"name": name, "secure_sums": sums}))

    def hold(self, name: str, **images: list[Image]) -> None:
        """Give a hospital images by split."""
        splits: dict[Split, list[Image]] = {"train": images["train"], "test": images["test"]}
        rows = [
            Case(f"{split}:{image.id}", image.id, "Is it?", "yes", "closed", split, "d", "en")
            for split, held in splits.items()
            for image in held
        ]
        with (self.cases[name] / "cases.parquet").open("wb") as sink:
            write_table(sink, Case, rows)
        with (self.cases[name] / "images.parquet").open("wb") as sink:
            write_table(sink, Image, [image for held in splits.values() for image in held])

    def ask(self, hospital: str, request: Parcel) -> Parcel:
        try:
            return self.there[hospital].answer(self.study, request, self.cases[hospital])
        except NotAgreedError as error:
            return Parcel("refused", {"reason": str(error)})

    def close(self) -> None: ...


@pytest.mark.parametrize("least", [1, 5])
def test_the_coordinator_is_told_counts_unless_they_are_small(tmp_path: Path, least: int) -> None:
    hospitals = Hospitals(tmp_path, least)
    hospitals.hold("east", train=IMAGES[:3], test=IMAGES[3:5])
    hospitals.hold("north", train=IMAGES[3:6], test=[IMAGES[0], IMAGES[1], IMAGES[9]])
    hospitals.hold("south", train=IMAGES[6:8], test=[IMAGES[8]])
    with linked(hospitals):
        told = compare_images(NAMES)
    assert told == ({"east": 2, "north": 2, "south": 0} if least == 1 else dict.fromkeys(NAMES))
    again = Hospitals(tmp_path, least)  # north was started again
    north = again.there["north"]
    assert north.trained_elsewhere(again.study, again.cases["north"]) == [IMAGES[0].id, IMAGES[1].id]
    assert not north.trained_elsewhere(Study(), again.cases["north"])  # it does not compare images
    written = Path("artifacts/hospitals/north/compared.json").read_text(encoding="utf-8")
    assert not any(image.id in written for image in IMAGES)
    north.forget()
    with pytest.raises(NotAgreedError, match="a comparison of images before the scores, found none"):
        north.trained_elsewhere(again.study, again.cases["north"])


def test_an_answer_that_was_lost_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower sends a request again if its answer did not arrive."""
    hospitals = Hospitals(tmp_path, 1)
    for name in NAMES:
        hospitals.hold(name, train=IMAGES[:2], test=IMAGES[:2])
    honest = hospitals.ask

    def twice(hospital: str, request: Parcel) -> Parcel:
        first = honest(hospital, request) if request.about.get("step") != "introduce" else None
        again = honest(hospital, request)
        assert first in (None, again)
        return again

    monkeypatch.setattr(hospitals, "ask", twice)
    with linked(hospitals):
        assert compare_images(NAMES) == dict.fromkeys(NAMES, 2)


def test_steps_out_of_order_and_answers_of_another_kind_are_refused(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path, 1)
    for name in NAMES:
        hospitals.hold(name, train=[], test=[])
    assert "the beginning of a comparison" in str(hospitals.ask("east", Parcel("images", {"step": "mark"})).about)
    hospitals.ask("east", Parcel("images", {"step": "introduce", "session": "one"}))
    assert "a step of a comparison" in str(hospitals.ask("east", Parcel("images", {"step": "another"})).about)
    false = {"step": "mark", "session": "one", "keys": {"north": {"public": "00"}}}
    assert "a key and its signature" in str(hospitals.ask("east", Parcel("images", false)).about)
    (tmp_path / "north/others/east.pub").unlink()
    with linked(hospitals), pytest.raises(StudyError, match="north refused: Expected hospitals whose keys north has"):
        compare_images(NAMES)
    hospitals.study = Study()
    assert "found one without" in str(hospitals.ask("south", Parcel("images", {"step": "introduce"})).about)


def test_a_count_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hospitals = Hospitals(tmp_path, 1)
    for name in NAMES:
        hospitals.hold(name, train=[], test=[])
    honest = hospitals.ask

    def lying(hospital: str, request: Parcel) -> Parcel:
        if request.about.get("step") == "compare":
            return Parcel("done", {"images": -1})
        return honest(hospital, request)

    monkeypatch.setattr(hospitals, "ask", lying)
    with linked(hospitals), pytest.raises(StudyError, match="a number of images from east"):
        compare_images(NAMES)
