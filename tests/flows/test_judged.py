"""What a comparison knows of answers: the same case in every configuration, and the same image at every seed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.changed_answers import changed_answers
from flows.judged import outcomes
from tasks.compare.aligned import align
from tasks.compare.tests import paired_tests
from tasks.errors import StudyError
from tasks.records import Case, Image, Prediction, read_table, write_table
from tasks.settings import Study
from tasks.store import ROOT, writing


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `artifacts/` comes to lie."""
    monkeypatch.chdir(tmp_path)


def picture(number: int, seed: int, drawn: bool) -> Image:
    """A published image is the same at each seed; a drawn one has the same name and other pixels."""
    return Image(f"image-{number}", b"%d of %d" % (number, seed if drawn else 0), 1, 1)


def run(seed: int, tested: range, hospitals: int, right: bool, drawn: bool = False) -> Path:
    """A finished run whose hospitals hold images in turn, with two questions about each, and shared nothing."""
    places = {}
    for hospital in range(1, hospitals + 1):
        numbers = [number for number in range(12) if number % hospitals == hospital - 1]
        area, key = f"hospitals/hospital-{hospital}", f"{seed}-{hospitals}-{right}-{drawn}"
        cases = [
            Case(f"d:{number}:{n}", f"image-{number}", "Is it?", "yes", "closed", "test", "d", "en")
            for number in numbers
            for n in range(2)
        ]
        with writing(area, "cases", key) as folder:
            with folder.open("cases.parquet") as sink:
                write_table(sink, Case, cases)
            with folder.open("images.parquet") as sink:
                write_table(sink, Image, [picture(number, seed, drawn) for number in numbers])
        about = {"cases": folder.ref.path}
        test_cases = [case for case in cases if int(case.image_id.split("-")[1]) in tested]
        said = [
            Prediction("fed+rag", case.id, f"hospital-{hospital}", "closed", "Is it?", "yes", word, ())
            for case in reversed(test_cases)
            for word in ["yes" if right or case.id.endswith(":0") else "no"]
        ]
        with writing(area, "predictions", key) as folder, folder.open("predictions.parquet") as sink:
            write_table(sink, Prediction, [*said, *(replace(row, configuration="base") for row in said)])
        places[f"hospital-{hospital}"] = about | {"predictions": [folder.ref.path]}
    with writing("", "runs", key) as folder:
        folder.write_json("settings.json", Study(seed=seed).model_dump(mode="json"))
        folder.write_json("references.json", {"adapter": None, "hospitals": places})
    return folder.ref.folder


def test_a_case_is_the_same_whichever_hospital_holds_it() -> None:
    """One hospital or four, which share no secret: answers are paired case by case."""
    found = {
        "fed": {0: outcomes(run(0, range(8), 4, right=True))["trained"]},
        "central": {0: outcomes(run(0, range(8), 1, right=False))["trained"]},
    }
    (test,) = [
        each
        for each in paired_tests(align(found, "fed"), ["fed", "central"], "fed")
        if each["measure"] == "closed_accuracy"
    ]
    assert (test["n"], test["images"], test["difference"]) == (16, 8, 0.5)
    assert set(outcomes(run(0, range(8), 4, right=True))) == {"trained", "base"}


def test_an_image_that_several_seeds_test_is_one_image() -> None:
    """Each seed splits the same twelve images otherwise: 8 + 8 + 8 of them are 12, as 155 were counted 189 times."""
    tested = {0: range(8), 1: range(4, 12), 2: range(2, 10)}
    for drawn, images in ((False, 12), (True, 24)):
        rows = {
            seed: outcomes(run(seed, numbers, 2, right=True, drawn=drawn))["trained"]
            for seed, numbers in tested.items()
        }
        answers = align({"fed": rows}, "fed")["fed"]
        assert answers.image_counts() == {"images": images, "images_by_seed": {"0": 8, "1": 8, "2": 8}}
        assert len(answers.rows) == 3 * 8 * 2


def test_the_same_bytes_under_two_names_are_one_image() -> None:
    first = run(0, range(12), 1, right=True)
    place = json.loads((first / "references.json").read_text())["hospitals"]["hospital-1"]["cases"]
    copied = [replace(picture(number // 2, 0, drawn=False), id=f"image-{number}") for number in range(12)]
    with writing(place.split("/cases/")[0], "cases", place.split("/")[-1]) as folder:
        folder.write("cases.parquet", (Path("artifacts") / place / "cases.parquet").read_bytes())
        with folder.open("images.parquet") as sink:
            write_table(sink, Image, copied)
    assert len({row.image for row in outcomes(first)["trained"]}) == 6


@pytest.mark.parametrize("moved", ["image", "question", "reference"])
def test_a_case_of_the_same_name_with_another_content_is_another_case(moved: str) -> None:
    """Rows of a hospital's table may move, and names that count rows with them."""
    one = run(0, range(8), 2, right=True)
    other = run(1, range(8), 2, right=False, drawn=True) if moved == "image" else run(0, range(8), 2, right=False)
    if moved != "image":
        change_answers(other, **{moved: "Which?" if moved == "question" else "no"})
    with pytest.raises(StudyError, match="to answer the 16 test cases"):
        align({"B": {0: outcomes(one)["trained"]}, "A": {0: outcomes(other)["trained"]}}, "B")
    assert changed_answers(one, other) is None
    same = run(0, range(8), 4, right=False)
    found = changed_answers(one, same)
    assert found and (found.common, found.counts["became wrong"]) == (16, 8)


def change_answers(run: Path, **changes: str) -> None:
    """Give all answers of a run another content."""
    for folders in json.loads((run / "references.json").read_text())["hospitals"].values():
        for place in folders["predictions"]:
            rows = [replace(row, **changes) for row in read_table(ROOT / place / "predictions.parquet", Prediction)]
            with (ROOT / place / "predictions.parquet").open("wb") as sink:
                write_table(sink, Prediction, rows)
