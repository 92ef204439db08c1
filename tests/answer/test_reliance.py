"""The prompts that show what an answer relies on, and what is said of their scores."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from engine_samples import CASES, IMAGES
from hypothesis import given
from hypothesis import strategies as st
from test_evaluate_step import TRAIN, about, asking, hospital, settings  # noqa: F401  (the fixture)

from tasks.answer.perturb import mix, perturb, stand_ins
from tasks.answer.step import measure_reliance, score_hospital
from tasks.cases.sample import sample
from tasks.engine.prompt import Query
from tasks.engine.vision import Features
from tasks.records import Image, Prediction, read_table, write_table
from tasks.records.perturbations import AS_IS, BLANK, FLIPPED, MEANINGS, NOISE, OTHERS, REMOVED, SWAPPED, WORDS
from tasks.report.intervals import details
from tasks.report.perturbation import reliance_table, summarise_reliance
from tasks.report.results import Measured, assemble, markdown
from tasks.score.score import Tally, score_row, summarise
from tasks.settings import ContextSettings
from tasks.store import writing
from tasks.text.normalise import normalise

KNOWN = [
    replace(case, modality="ct" if number % 2 else "mri", kind="closed" if case.answer in ("yes", "no") else "open")
    for number, case in enumerate(CASES)
]
QUERIES = [Query(KNOWN[n], tuple(KNOWN[(n + 1 + i) % 6] for i in range(n % 4))) for n in range(6)]


def test_each_perturbation_changes_one_thing() -> None:
    found = perturb(QUERIES, KNOWN, seed=0)
    assert found.keys() == MEANINGS.keys()
    for name, rows in found.items():
        assert len(rows) == len(QUERIES)
        for query, changed in zip(QUERIES, rows, strict=True):
            differing = {field for field in ("case", "retrieved") if getattr(query, field) != getattr(changed, field)}
            allowed = {"case"} if name in (BLANK, NOISE, SWAPPED, WORDS) else {"retrieved", "similarities"}
            assert differing <= (set() if name == AS_IS else allowed)
            assert changed.case.answer == query.case.answer
            same = replace(changed.case, image_id=query.case.image_id, question=query.case.question)
            assert same == query.case
    assert all(not each.retrieved for each in found[REMOVED])
    for query, other in zip(QUERIES, found[SWAPPED], strict=True):
        modality = {case.image_id: case.modality for case in KNOWN}
        assert other.case.image_id != query.case.image_id
        assert modality[other.case.image_id] == modality[query.case.image_id]
    for query, other in zip(QUERIES, found[OTHERS], strict=True):
        assert all(case.image_id != query.case.image_id for case in other.retrieved)
    assert [each.retrieved for each in found[OTHERS]] != [each.retrieved for each in QUERIES]
    for query, other in zip(QUERIES, found[FLIPPED], strict=True):
        for before, after in zip(query.retrieved, other.retrieved, strict=True):
            assert normalise(after.answer) != normalise(before.answer)
            if before.answer in ("yes", "no"):
                assert {before.answer, after.answer} == {"yes", "no"}
            assert replace(after, answer=before.answer) == before
    assert perturb(QUERIES, KNOWN, seed=0) == found != perturb(QUERIES, KNOWN, seed=1)


def test_a_wrong_answer_is_another_option_or_of_the_same_topic() -> None:
    one = replace(KNOWN[1], options=("upper left", "lower right"))
    (changed,) = perturb([Query(KNOWN[0], (one,))], KNOWN, seed=3)[FLIPPED]
    assert changed.retrieved[0].answer == "lower right"
    where = [replace(KNOWN[1], id=f"w{n}", topic="where", answer=answer) for n, answer in enumerate(("left", "right"))]
    (changed,) = perturb([Query(KNOWN[0], (where[0],))], [*KNOWN, *where], seed=3)[FLIPPED]
    assert changed.retrieved[0].answer == "right"


@pytest.mark.parametrize("answer", ["yes", "no", "Yes.", "NO"])
def test_yes_and_no_are_turned_whatever_else_was_answered(answer: str) -> None:
    others = [replace(KNOWN[n], id=f"o{n}", kind="closed", answer=f"maybe {n}") for n in range(4)]
    retrieved = replace(KNOWN[1], kind="closed", answer=answer, options=("perhaps", "maybe"))
    (changed,) = perturb([Query(KNOWN[0], (retrieved,))], [*KNOWN, *others], seed=0)[FLIPPED]
    assert changed.retrieved[0].answer == ("no" if normalise(answer) == "yes" else "yes")


def test_a_wrong_answer_is_of_the_questions_kind_where_its_topic_knows_no_other() -> None:
    """Of training cases alone; and with nothing else to say, it is no."""
    query, about = (
        Query(KNOWN[0], (replace(KNOWN[1], topic="where", answer="left"),)),
        {"topic": "size", "kind": "open"},
    )
    left = replace(KNOWN[1], id="w", topic="where", answer="Left.", kind="open")
    known = [left, *(replace(KNOWN[2], id=f"s{n}", answer=each, **about) for n, each in enumerate(("big", "small")))]
    unseen = replace(KNOWN[2], id="t", split="test", answer="never said", topic="where", kind="open")
    said = {perturb([query], [*known, unseen], seed)[FLIPPED][0].retrieved[0].answer for seed in range(12)}
    assert said == {"big", "small"}
    assert perturb([query], [left, unseen], 0)[FLIPPED][0].retrieved[0].answer == "no"


def test_whatever_is_chosen_follows_from_the_seed_and_may_be_any() -> None:
    """Over seeds: every other image of the modality, every other answer, and many orders of words and cases."""
    images = [replace(KNOWN[0], id=f"i{n}", image_id=f"i{n}", answer=f"answer {n}") for n in range(5)]
    question = "one two three four five"
    queries = [Query(replace(each, question=question), (images[place - 1],)) for place, each in enumerate(images)]
    found = [perturb(queries, images, seed) for seed in range(40)]
    assert {each[SWAPPED][0].case.image_id for each in found} == {"i1", "i2", "i3", "i4"}
    assert len({tuple(row.case.image_id for row in each[SWAPPED]) for each in found}) > 30
    assert {each[FLIPPED][0].retrieved[0].answer for each in found} == {f"answer {n}" for n in range(4)}
    assert len({each[WORDS][0].case.question for each in found}) > 20
    partners = [tuple(row.retrieved[0].id if row.retrieved else "" for row in each[OTHERS]) for each in found]
    assert len(set(partners)) > 10
    assert all(sorted(each) == sorted(f"i{n}" for n in range(5)) or "" in each for each in partners)
    one, other = (perturb([queries[0]], images, seed)[SWAPPED][0].case.image_id for seed in (3, 3))
    assert one == other == found[3][SWAPPED][0].case.image_id  # whatever is asked beside it


def test_another_image_is_of_another_group_where_there_is_one() -> None:
    """And of the modality before that; a group that is not stated ties nothing."""
    first = replace(KNOWN[0], id="a", image_id="a", modality="ct", group="p")
    kin = replace(first, id="b", image_id="b")
    strange = replace(first, id="c", image_id="c", group="q")
    unstated = replace(first, id="d", image_id="d", group=None)
    mri = replace(strange, id="e", image_id="e", modality="mri")

    def seen(*known: Any) -> set[str]:
        return {perturb([Query(first, ())], [first, *known], seed)[SWAPPED][0].case.image_id for seed in range(20)}

    assert seen(kin, strange, unstated, mri) == {"c", "d"}
    assert seen(kin, mri) == {"b"}
    assert seen(mri) == {"e"}


def test_without_neighbours_nothing_is_said_of_them() -> None:
    found = perturb([replace(each, retrieved=()) for each in QUERIES], KNOWN, seed=0)
    assert found.keys() == {AS_IS, BLANK, NOISE, SWAPPED, WORDS}
    alone = [case for case in KNOWN if case.image_id == "image-2"]
    (changed,) = perturb([Query(alone[0], ())], alone, seed=0)[SWAPPED]
    assert changed.case.image_id == "image-2"  # a hospital of one image has no other to show


@given(st.text(alphabet="ab 肺x", max_size=12), st.integers(0, 5))
def test_words_are_mixed_and_kept(question: str, seed: int) -> None:
    mixed = mix(question, np.random.default_rng(seed))
    assert sorted(mixed.replace(" ", "")) == sorted(question.replace(" ", ""))
    words = list(question) if "肺" in question else question.split()
    assert (mixed != question) == (len(set(words)) > 1) or mixed.split() != words


def test_blank_and_noise_have_the_images_size() -> None:
    made = stand_ins(IMAGES, seed=0)
    for image, blank, noise in zip(IMAGES, made[::2], made[1::2], strict=True):
        pixels = [np.asarray(PIL.Image.open(io.BytesIO(each.data)).convert("RGB")) for each in (image, blank, noise)]
        assert pixels[0].shape == pixels[1].shape == pixels[2].shape
        assert (blank.width, blank.height) == (image.width, image.height) == (noise.width, noise.height)
        np.testing.assert_array_equal(pixels[1], pixels[1][:1, :1].repeat(image.height, 0).repeat(image.width, 1))
        np.testing.assert_allclose(pixels[1][0, 0], pixels[0].reshape(-1, 3).mean(0), atol=0.51)
        assert 60 < pixels[2].std() < 90
    assert stand_ins(IMAGES, seed=0) == made
    assert [a == b for a, b in zip(stand_ins(IMAGES, seed=1), made, strict=True)] == [True, False] * len(IMAGES)


def tally(right: int, of: int) -> Tally:
    answers = ["yes"] * right + ["no"] * (of - right)
    return summarise([score_row(answer, "yes", kind, ()) for kind in ("closed", "open") for answer in answers])


@pytest.mark.parametrize(("blank", "ignores"), [(8, True), (7, False), (10, True), (0, False)])
def test_a_model_that_keeps_four_fifths_ignores_images(blank: int, ignores: bool) -> None:
    summary = summarise_reliance("fed", {AS_IS: tally(10, 20), BLANK: tally(blank, 20)})
    assert summary["ignores_images"] is ignores
    assert summary["alterations"][BLANK]["kept"] == pytest.approx(blank / 10)
    assert summary["alterations"][BLANK]["closed"] == summary["alterations"][BLANK]["open"] == blank / 20
    assert summary["n"] == 40
    assert ("it ignores images" in summary["sentence"]) == ignores
    nothing = summarise_reliance("fed", {AS_IS: tally(0, 5), BLANK: tally(2, 5)})
    assert nothing["ignores_images"] is None
    assert "cannot be told" in nothing["sentence"]


def test_hospitals_are_pooled() -> None:
    shared = [
        {"hospital": name, "tallies": {AS_IS: tally(10, 10).to_json(), BLANK: tally(kept, 10).to_json()}}
        for name, kept in (("a", 9), ("b", 1))
    ]
    summary = reliance_table("fed", shared)["fed"]
    assert summary["alterations"][BLANK]["kept"] == 0.5
    assert [each["ignores_images"] for each in summary["hospitals"].values()] == [True, False]
    assert reliance_table("fed", []) == {}


def test_the_sample_is_of_the_seed() -> None:
    chosen = sample(CASES, 3, seed=0)
    assert len(chosen) == 3 and chosen == [case for case in CASES if case in chosen]
    assert sample(CASES, 3, seed=0) == chosen
    assert {tuple(case.id for case in sample(CASES, 3, seed)) for seed in range(20)} != {tuple(c.id for c in chosen)}
    assert sample(CASES, 50, seed=0) == CASES


def test_the_stage_answers_every_perturbation(settings: dict[str, Any], features: Features) -> None:  # noqa: F811
    test = [replace(case, split="test") for case in CASES[4:]]
    hospital_refs = hospital(features, [*TRAIN, *test])
    with writing("hospitals/north", "cases", "1") as folder:
        for name, record, rows in (("cases", type(TRAIN[0]), [*TRAIN, *test]), ("images", Image, IMAGES)):
            with folder.open(f"{name}.parquet") as sink:
                write_table(sink, record, rows)
    ref = measure_reliance.fn(
        **asking(hospital_refs | {"cases": folder.ref}, settings), context=ContextSettings(k=1), count=3, seed=0
    )
    assert ref.path.startswith("hospitals/north/reliance/")
    rows = read_table(ref.folder / "predictions.parquet", Prediction)
    by_name = {name: [row for row in rows if row.configuration == name] for name in MEANINGS}
    assert all(len(each) == 3 for each in by_name.values())
    assert all(not row.neighbours for row in by_name[REMOVED])
    assert all(len(row.neighbours) == 1 for row in by_name[FLIPPED])
    assert any(a.prediction != b.prediction for a, b in zip(by_name[AS_IS], by_name[NOISE], strict=True))
    scored = score_hospital.fn(hospital="north", cases=folder.ref, predictions=[ref], min_cell=1)
    shared = json.loads((scored.folder / "scores.json").read_text())
    summaries = reliance_table("fed+rag", [shared])
    assert summaries["fed+rag"]["n"] == 3
    results = assemble([shared], [], Measured(details([], 0), reliance=summaries), about())
    assert "relies on" in markdown(results)
    assert summaries["fed+rag"]["sentence"] in markdown(results)
