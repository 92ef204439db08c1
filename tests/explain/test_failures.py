"""Failure modes: each rule on answers made for it, text in pixels, and the stages on a tiny model."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest
from engine_samples import CASES, IMAGES, randomised
from family_samples import every_family
from hypothesis import given
from hypothesis import strategies as st
from test_evaluate_step import TRAIN, asking, hospital, settings  # noqa: F401  (the fixture)

from tasks.answer.step import measure_reliance
from tasks.engine.adapter import load_state
from tasks.engine.attribution.occlusion import answer_log_probs
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.hospital import open_hospital
from tasks.engine.prompt import Query, build_prompt, build_queries
from tasks.engine.shared import shared_engine
from tasks.engine.vision import Features, encode_images
from tasks.explain.attribution import explain
from tasks.explain.burned_in import text_boxes
from tasks.explain.examination import Seen, covered_cells, examine
from tasks.explain.failures import Examination, count_modes, judge_all, records
from tasks.explain.hospital_attributions import draw
from tasks.explain.step import count_failures, explain_some, find_failures
from tasks.ingest import phantom
from tasks.records import Case, FailureModes, Finding, Image, Prediction, Saliency, Share, read_table, write_table
from tasks.records.explanations import (
    ALWAYS_YES,
    BORDER,
    BURNED_IN,
    COPIES_NEIGHBOUR,
    DIFFUSE,
    IGNORES_IMAGE,
    MEANINGS,
    WRONG_REGION,
)
from tasks.records.federation import HospitalRefs
from tasks.records.perturbations import AS_IS, BLANK, FLIPPED, REMOVED
from tasks.records.pixels import to_rgb
from tasks.report.failures import failure_rows, failure_table
from tasks.settings import ContextSettings
from tasks.store import Ref, writing

PEAK = np.array([[0, 0, 0], [0, 9.0, 1], [0, 1, 0]])
ON = np.array([[0, 0, 0], [0, 0.4, 0], [0, 0, 0]])
SOUND = Examination(
    case_id="c",
    reference="Yes",
    prediction="yes",
    correct=True,
    blank="no",
    retrieved_answers=("no", "mass"),
    unaided=("yes", "yes"),
    blank_fall=2.0,
    border_fall=0.5,
    text_fall=0.2,
    weights=PEAK,
    covered=ON,
)


def modes(**changes: Any) -> dict[str, bool | None]:
    (found,) = judge_all([replace(SOUND, **changes)])
    return found


def test_a_sound_answer_has_no_failure() -> None:
    assert modes() == dict.fromkeys(MEANINGS, False) | {ALWAYS_YES: None}


@pytest.mark.parametrize(
    ("mode", "changes", "expected"),
    [
        (IGNORES_IMAGE, {"blank": "Yes.", "blank_fall": 0.09}, True),
        (IGNORES_IMAGE, {"blank": "Yes.", "blank_fall": -1.0}, True),
        (IGNORES_IMAGE, {"blank": "Yes.", "blank_fall": 0.1}, False),
        (IGNORES_IMAGE, {"blank": "no", "blank_fall": 0.05}, False),
        (COPIES_NEIGHBOUR, {"retrieved_answers": ("YES", "no"), "unaided": ("no", "yes")}, True),
        (COPIES_NEIGHBOUR, {"retrieved_answers": ("YES", "no"), "unaided": ("yes", "no")}, True),
        (COPIES_NEIGHBOUR, {"retrieved_answers": ("YES", "no"), "unaided": ("yes", "yes")}, False),
        (COPIES_NEIGHBOUR, {"retrieved_answers": ("no", "no"), "unaided": ("no", "no")}, False),
        (COPIES_NEIGHBOUR, {"retrieved_answers": (), "unaided": ()}, None),
        (BORDER, {"border_fall": 1.0}, True),
        (BORDER, {"border_fall": 0.99}, False),
        (BORDER, {"border_fall": 1.0, "blank_fall": 0.05}, None),
        (BORDER, {"border_fall": -1.0, "blank_fall": -2.0}, None),
        (BURNED_IN, {"text_fall": 1.5}, True),
        (BURNED_IN, {"text_fall": None}, None),
        (DIFFUSE, {"weights": np.ones((3, 3))}, True),
        (DIFFUSE, {"weights": np.arange(9.0).reshape(3, 3) > 1}, True),
        (DIFFUSE, {"weights": np.arange(9.0).reshape(3, 3) > 3}, False),
        (DIFFUSE, {"weights": np.ones((1, 1)), "covered": np.ones((1, 1))}, None),
        (WRONG_REGION, {"weights": np.roll(PEAK, 1, 0)}, True),
        (WRONG_REGION, {"weights": np.roll(PEAK, 1, 0) + 9 * PEAK / 10}, False),
        (WRONG_REGION, {"weights": np.roll(PEAK, 1, 0), "correct": False}, None),
        (WRONG_REGION, {"covered": None}, None),
    ],
)
def test_each_rule(mode: str, changes: dict[str, Any], expected: bool | None) -> None:
    assert modes(**changes)[mode] is expected


@pytest.mark.parametrize(("wrong", "right", "expected"), [(4, 6, True), (4, 5, None), (1, 19, False)])
def test_yes_to_everything_is_a_matter_of_all_answers(wrong: int, right: int, expected: bool | None) -> None:
    """With one no due among twenty, yes is what should nearly always be said."""
    rows = [SOUND] * right + [replace(SOUND, reference="no", correct=False)] * wrong
    rows.append(replace(SOUND, reference="mass", prediction="mass"))
    found = [each[ALWAYS_YES] for each in judge_all(rows)]
    assert found == [None if expected is None else False] * right + [expected] * wrong + [None]


def test_a_model_that_says_no_too_does_not_say_yes_to_everything() -> None:
    rows = [SOUND] * 8 + [replace(SOUND, reference="no", correct=False)] + [replace(SOUND, prediction="no")] * 3
    assert not any(each[ALWAYS_YES] for each in judge_all(rows))


@given(st.lists(st.lists(st.sampled_from([True, False, None]), min_size=len(MEANINGS), max_size=len(MEANINGS))))
def test_counts_are_of_the_cases_a_rule_applies_to(drawn: list[list[bool | None]]) -> None:
    judged = [dict(zip(MEANINGS, each, strict=True)) for each in drawn]
    counts = count_modes(records([SOUND] * len(judged), judged), 1)
    assert counts["n"] == len(judged)
    for place, mode in enumerate(MEANINGS):
        column = [each[place] for each in drawn]
        assert counts["modes"][mode] == {"cases": column.count(True), "of": len(column) - column.count(None)}


def test_hospitals_are_added_up() -> None:
    one, other = (
        {"hospital": name, **count_modes(records([SOUND] * n, [modes(blank="yes", blank_fall=0.0)] * n), 1)}
        for name, n in (("a", 2), ("b", 3))
    )
    table = failure_table("fed", [one, other, {"hospital": "c", **count_modes([], 1)}])["fed"]
    assert table["n"] == 5 and set(table["hospitals"]) == {"a", "b"}
    assert table["modes"][IGNORES_IMAGE] == {"meaning": MEANINGS[IGNORES_IMAGE], "cases": 5, "of": 5}
    assert table["modes"][ALWAYS_YES]["of"] == 0
    assert failure_rows(table)[1] == ("ignores image", "5", "5", MEANINGS[IGNORES_IMAGE])
    assert failure_table("fed", []) == {}


@given(st.lists(st.lists(st.sampled_from([True, False, None]), min_size=len(MEANINGS), max_size=len(MEANINGS))))
def test_no_count_of_few_answers_is_published(drawn: list[list[bool | None]]) -> None:
    judged = records([SOUND] * len(drawn), [dict(zip(MEANINGS, each, strict=True)) for each in drawn])
    published, whole = count_modes(judged, 5), count_modes(judged, 1)
    assert published["n"] == (whole["n"] if whole["n"] not in range(1, 5) else None)
    for mode, cells in published["modes"].items():
        assert not {1, 2, 3, 4} & set(cells.values())
        few = whole["modes"][mode]["of"] in range(1, 5)
        assert cells["of"] == (None if few else whole["modes"][mode]["of"])
        if not few and whole["modes"][mode]["cases"] not in range(1, 5):
            assert cells["cases"] == whole["modes"][mode]["cases"]


def test_a_sum_is_withheld_where_a_hospital_withholds_its_part() -> None:
    ignores = modes(blank="yes", blank_fall=0.0)
    one = {"hospital": "a", **count_modes(records([SOUND] * 6, [ignores] * 6), 5)}
    other = {"hospital": "b", **count_modes(records([SOUND] * 6, [ignores] * 2 + [modes()] * 4), 5)}
    silent = {"hospital": "c", **count_modes(records([SOUND] * 3, [ignores] * 3), 5)}
    table = failure_table("fed", [one, other, silent])["fed"]
    assert (table["n"], set(table["hospitals"])) == (12, {"a", "b"})
    assert table["modes"][IGNORES_IMAGE] == {"meaning": MEANINGS[IGNORES_IMAGE], "cases": None, "of": 12}
    assert failure_rows(table)[1][1:3] == ("withheld", "12")


def written(words: str, at: tuple[int, int], colour: tuple[int, int, int], size: int = 14) -> Any:
    """A phantom enlarged, and the same with words in it."""
    (image, *_) = phantom.read(images=4, seed=3, public=True, test_fraction=0.2).images
    plain = to_rgb(image.data).resize((300, 300)).point(lambda value: int(value * 0.8))
    marked = plain.copy()
    PIL.ImageDraw.Draw(marked).text(at, words, fill=colour, font=PIL.ImageFont.load_default(size))
    return np.asarray(plain), np.asarray(marked)


@pytest.mark.parametrize("words", ["PORTABLE", "LEFT 1234", "HOSPITAL 12"])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 255, 0)])
@pytest.mark.parametrize("at", [(5, 5), (200, 278)])
def test_printed_words_are_seen_where_they_are(words: str, colour: Any, at: tuple[int, int]) -> None:
    plain, marked = written(words, at, colour)
    assert text_boxes(plain) == []
    rows, columns = np.nonzero((plain != marked).any(2))
    seen = np.zeros(marked.shape[:2], bool)
    for left, upper, right, lower in text_boxes(marked):
        seen[upper:lower, left:right] = True
    assert seen.any()
    assert seen[:, : columns.min()].sum() == seen[: rows.min()].sum() == seen[rows.max() + 1 :].sum() == 0
    assert seen[rows, columns].mean() > 0.6


def test_few_phantoms_are_taken_for_text() -> None:
    images = phantom.read(images=30, seed=7, public=False, test_fraction=0.2).images
    assert sum(bool(text_boxes(np.asarray(to_rgb(image.data)))) for image in images) <= len(images) // 40


def mask(box: tuple[int, int, int, int]) -> bytes:
    made, sink = PIL.Image.new("L", (90, 60)), io.BytesIO()
    made.paste(255, box)
    made.save(sink, "PNG")
    return sink.getvalue()


def test_the_findings_in_question_are_those_that_are_named() -> None:
    findings = [
        Finding("i", "mass", "upper left", "small", mask((0, 0, 30, 30))),
        Finding("i", "cyst", "lower right", "small", mask((60, 30, 90, 60))),
        Finding("j", "mass", "upper left", "small", mask((0, 0, 90, 60))),
    ]
    case = Case("c", "i", "Where is the mass?", "upper left", "open", "test", "d", "en")
    found = Saliency("c", "relevance", None, None, None, "i", None, 2, 3, (0.0,) * 6, (0.0, 0.0, 90.0, 60.0))

    def covered(**changes: str) -> Any:
        each = covered_cells(replace(case, **changes), findings, found)
        return None if each is None else each.tolist()

    assert covered() == [[1, 0, 0], [0, 0, 0]]
    assert covered(question="What is the main finding?", answer="Cyst.") == [[0, 0, 0], [0, 0, 1]]
    assert covered(question="Is the mass near the cyst?") == [[1, 0, 0], [0, 0, 1]]
    assert covered(question="Is this massive?", answer="no") is None
    assert covered(question="Is there an abscess?", answer="no") is None
    part = replace(found, window=(30.0, 0.0, 90.0, 60.0), columns=2)
    assert (covered_cells(replace(case, answer="cyst"), findings, part) == [[0, 0], [0, 1]]).all()


@every_family
def test_an_examination_is_of_images_painted_by_hand(engine: Engine) -> None:
    """The border, the text and the whole image are painted over in pixels, and the answer is asked for again."""
    engine.switch(randomised(engine.read(), 1))
    base = engine.base
    pixels = written("PORTABLE", (150, 120), (255, 255, 255))[1]
    pictures = {"asked": picture(pixels, "asked"), **{image.id: image for image in IMAGES}}
    query = Query(replace(CASES[1], image_id="asked"), (CASES[4],), (0.9,))
    lower_half = np.arange(300)[:, None] // 150 * np.full((1, 300), 255)
    findings = [Finding("asked", "nodule", "", "", to_png(lower_half))]
    given = Prediction("", query.case.id, "north", "open", "", "upper left", "upper left", ())
    answers = {name: replace(given, prediction=name) for name in (BLANK, REMOVED, FLIPPED)} | {AS_IS: given}
    seen = Seen(base, encode_images(base, list(pictures.values())), pictures, findings, ContextSettings(), 8192)
    found = examine(seen, query, answers)

    def log_prob(other: Any) -> float:
        changed = encode_images(base, [picture(other, "asked"), *IMAGES])
        (example,) = encode(base, changed, [build_prompt(query.case, query.retrieved)])
        return float(answer_log_probs(base, changed, [example], 8192)[0].sum())

    def fall(rows: slice, columns: slice, inside: bool) -> float:
        region = np.zeros(pixels.shape[:2], bool)
        region[rows, columns] = True
        other = pixels.copy()
        other[region == inside] = pixels.reshape(-1, 3).mean(0).round()
        return log_prob(pixels) - log_prob(other)

    left, upper, right, lower = base.family.window(base.image_processor, 300, 300)
    assert (left, upper, right, lower) == (0, 0, 300, 300)
    ((x, y, xx, yy),) = text_boxes(pixels)
    assert found.blank_fall == pytest.approx(fall(slice(None), slice(None), True), abs=1e-4)
    assert found.border_fall == pytest.approx(fall(slice(30, 270), slice(30, 270), False), abs=1e-4)
    assert found.text_fall == pytest.approx(fall(slice(y, yy), slice(x, xx), True), abs=1e-4)
    assert len({round(each, 4) for each in (found.blank_fall, found.border_fall, found.text_fall or 0)}) == 3
    assert (found.correct, found.blank, found.unaided) == (True, BLANK, (REMOVED, FLIPPED))
    assert found.retrieved_answers == (CASES[4].answer,)
    assert found.covered is not None and found.covered.shape == found.weights.shape
    half = found.covered.shape[0] // 2
    assert not found.covered[:half].any() and (found.covered[half + 1 :] == 1).all()


def to_png(pixels: Any) -> bytes:
    sink = io.BytesIO()
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def picture(pixels: Any, name: str) -> Image:
    return Image(name, to_png(pixels), pixels.shape[1], pixels.shape[0])


def study(settings: dict[str, Any], features: Features) -> tuple[dict[str, Any], Ref]:  # noqa: F811
    """A hospital's folders and what its answers become with altered prompts."""
    test = [replace(case, split="test") for case in CASES[4:]]
    hospital_refs = hospital(features, [*TRAIN, *test])
    with writing("hospitals/north", "cases", "1") as folder:
        findings = [Finding(IMAGES[5].id, "mass", "", "", IMAGES[5].data)]
        rows: list[Any] = [("cases", Case, [*TRAIN, *test]), ("images", Image, IMAGES), ("findings", Finding, findings)]
        for name, record, each in rows:
            with folder.open(f"{name}.parquet") as sink:
                write_table(sink, record, each)
    places = hospital_refs | {"cases": folder.ref}
    context = ContextSettings(k=1)
    return places, measure_reliance.fn(**asking(places, settings), context=context, count=4, seed=0)


def test_the_stages_keep_cases_and_share_counts(settings: dict[str, Any], features: Features) -> None:  # noqa: F811
    places, relied = study(settings, features)
    given = {name: value for name, value in settings.items() if name != "answering"}
    context = ContextSettings(k=1)
    found = find_failures.fn(**asking(places, given), reliance=relied, context=context, tokens=8192, count=3, seed=0)
    assert found.path.startswith("hospitals/north/failures/")
    rows = read_table(found.folder / "failures.parquet", FailureModes)
    answered = read_table(relied.folder / "predictions.parquet", Prediction)
    assert len(rows) == 3 and {row.case_id for row in rows} < {row.case_id for row in answered}
    assert all({*row.modes, *row.inapplicable} <= set(MEANINGS) for row in rows)
    assert all(not {*row.modes} & {*row.inapplicable} for row in rows)
    assert all(ALWAYS_YES in row.inapplicable for row in rows)
    assert not any(COPIES_NEIGHBOUR in row.inapplicable for row in rows)
    counted = count_failures.fn(hospital="north", failures=found, min_cell=1)
    assert counted.path.startswith("shared/failure-counts/")
    shared = (counted.folder / "failures.json").read_text()
    assert json.loads(shared) == {"hospital": "north", **count_modes(rows, 1)}
    everything = shared + json.dumps(counted.manifest())
    assert not any(case.id in everything or case.question in everything for case in CASES)


def test_answers_are_explained_as_each_would_be_alone(settings: dict[str, Any], features: Features) -> None:  # noqa: F811
    """By the hospital's adapter, with what is retrieved, and of what was answered: not of the reference."""
    places, _ = study(settings, features)
    context = ContextSettings(k=1)
    hospital_data = open_hospital(HospitalRefs(name="north", adapter=settings["adapter"], **places))
    test = [case for case in hospital_data.cases if case.split == "test"]
    said = {case.id: f"said {number}" for number, case in enumerate(test)}
    rows = [Prediction("fed+rag", case.id, "north", case.kind, "?", case.answer, said[case.id], ()) for case in test]
    with writing("hospitals/north", "predictions", "0") as folder, folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, rows)
    found = explain_some.fn(**asking(places, settings), predictions=folder.ref, context=context, counts=[3, 2], seed=5)
    assert found.path.startswith("hospitals/north/saliency/")
    maps = read_table(found.folder / "saliency.parquet", Saliency)
    shares = read_table(found.folder / "shares.parquet", Share)
    chosen = draw(hospital_data.cases, [3, 2], 5)
    assert len(chosen) == 2 and {row.case_id for row in shares} == {case.id for case in chosen}
    images = {image.id: image for image in IMAGES}
    with shared_engine(settings["model"], settings["lora"]) as engine:
        engine.switch(load_state(settings["adapter"].folder))
        queries = build_queries(
            chosen, hospital_data.prompts(chosen, context), hospital_data.cases, hospital_data.neighbours
        )
        alone = [
            explain(engine.base, hospital_data.features, images, each, context, said[each.case.id]) for each in queries
        ]
    assert all(each.retrieved for each in queries)
    assert [(row.case_id, row.method, row.image_id, row.rank) for row in maps] == [
        (row.case_id, row.method, row.image_id, row.rank) for each in alone for row in each.maps
    ]
    for row, expected in zip(maps, (row for each in alone for row in each.maps), strict=True):
        np.testing.assert_allclose(row.weights, expected.weights, atol=1e-5)
    for one, other in zip(shares, (row for each in alone for row in each.shares), strict=True):
        assert (one.case_id, one.method, one.part) == (other.case_id, other.method, other.part)
        assert one.share == pytest.approx(other.share, abs=1e-5)


def test_without_queries_nothing_is_found(settings: dict[str, Any], features: Features) -> None:  # noqa: F811
    places, _ = study(settings, features)
    with writing("hospitals/north", "reliance", "none") as folder, folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, [])
    given = {name: value for name, value in settings.items() if name != "answering"}
    context = ContextSettings(k=1)
    found = find_failures.fn(
        **asking(places, given), reliance=folder.ref, context=context, tokens=8192, count=3, seed=0
    )
    assert read_table(found.folder / "failures.parquet", FailureModes) == []
    assert failure_table("fed", [{"hospital": "north", **count_modes([], 1)}]) == {}
