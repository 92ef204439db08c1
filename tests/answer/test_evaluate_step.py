"""Answers on disk and what is shared of them: multiple choice is scored by option, beside a control without images."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CASES, randomised
from safetensors.torch import save
from traces import Traces

from tasks.answer.step import (
    answer_baselines,
    answer_held_out,
    count_withheld,
    predict,
    score_hospital,
    tune_retrieval,
)
from tasks.engine import shared
from tasks.engine.adapter import WEIGHTS, load_state
from tasks.engine.identity import choose_model
from tasks.engine.vision import FEATURES, Features
from tasks.federate.step import initial_adapter
from tasks.records import Case, Neighbour, Prediction, read_table, write_table
from tasks.records.federation import HospitalRefs
from tasks.records.tuning import TUNING, Tuning, read_tuning
from tasks.report.abstention import abstention
from tasks.report.intervals import details
from tasks.report.results import About, Measured, assemble, markdown
from tasks.score.image_sums import read_sums
from tasks.settings import AnsweringSettings, ContextSettings, LoraSettings, ModelSettings
from tasks.store import Ref, writing

LORA = LoraSettings(r=4, alpha=8)
NONE, ONE = ContextSettings(k=0), ContextSettings(k=1)
OPTIONS = ("x-ray", "ultrasound", "a large effusion")
TRAIN = [replace(case, split="train") for case in CASES[:4]]
PLAIN = replace(CASES[4], split="test")
CHOICES = [
    replace(case, split="test", kind="closed", options=OPTIONS, answer=OPTIONS[number])
    for number, case in enumerate(CASES[5:8])
]


def hospital(features: Features, cases: list[Case]) -> dict[str, Ref]:
    refs = {}
    with writing("hospitals/north", "cases", "0") as folder, folder.open("cases.parquet") as sink:
        write_table(sink, Case, cases)
    refs["cases"] = folder.ref
    with writing("hospitals/north", "library", "0") as folder, folder.open("neighbours.parquet") as sink:
        nearest = [Neighbour(case.id, 0, TRAIN[place % 4].id, 0.5) for place, case in enumerate(cases)]
        write_table(sink, Neighbour, nearest)
    refs["library"] = folder.ref
    with writing("hospitals/north", "features", str(features.rows.sum())) as folder:
        folder.write(FEATURES, features.to_bytes())
    return refs | {"features": folder.ref}


@pytest.fixture
def settings(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What `predict` takes beside a hospital's folders; the adapter's weights are random, so that it says something."""
    monkeypatch.chdir(tmp_path)
    model = choose_model(ModelSettings(name=str(tiny_folder), device="cpu"))
    start = initial_adapter.fn(model=model, lora=LORA, seed=0)
    with writing("shared", "adapter", "random") as folder:
        folder.write(WEIGHTS, save(randomised(load_state(start.folder), 1), {"format": "pt"}))
    yield {
        "adapter": folder.ref,
        "model": model,
        "lora": LORA,
        "answering": AnsweringSettings(max_new_tokens=6),
    }
    shared._engine.clear()
    shared._base.clear()


def asking(refs: dict[str, Ref], settings: dict[str, Any]) -> dict[str, Any]:
    """What a stage is called with that asks the hospital's model."""
    others = {name: value for name, value in settings.items() if name != "adapter"}
    return others | {"hospital": HospitalRefs(name="north", adapter=settings["adapter"], **refs)}


def about() -> About:
    """A run of which next to nothing is known."""
    return About("r", (), {}, {}, {"disjoint": "none"}, {}, {}, {}, 0)


def answers(ref: Ref) -> dict[str, Prediction]:
    return {row.case_id: row for row in read_table(ref.folder / "predictions.parquet", Prediction)}


def test_the_control_sees_neither_image_nor_neighbours(settings: dict[str, Any], features: Features) -> None:
    other = replace(features, rows=features.rows + torch.randn(features.rows.shape))
    cases = [*TRAIN, PLAIN, *CHOICES]
    seeing, without = [], []
    for each in (features, other):
        refs = hospital(each, cases)
        seeing.append(answers(predict.fn(**asking(refs, settings), configuration="fed+rag", context=ONE)))
        without.append(
            answers(predict.fn(**asking(refs, settings), configuration="text_only", context=ONE, without_image=True))
        )
    assert seeing[0].keys() == {case.id for case in (PLAIN, *CHOICES)}
    assert without[0].keys() == {case.id for case in CHOICES}
    assert {row.neighbours for row in without[0].values()} == {()}
    assert all(row.neighbours for row in seeing[0].values())
    assert without[0] == without[1]
    assert all(0 < (row.confidence or 0) <= 1 for row in (*without[0].values(), *seeing[0].values()))
    assert seeing[0] != seeing[1]
    assert any(without[0][case.id].prediction != seeing[0][case.id].prediction for case in CHOICES)
    assert {row.options for row in without[0].values()} == {OPTIONS}


def all_texts() -> set[str]:
    """What the hospital's cases say and are called."""
    cases = (*TRAIN, PLAIN, *CHOICES)
    return {text for case in cases for text in (case.id, case.image_id, case.question, case.answer, *case.options)}


def test_results_hold_both_by_option(settings: dict[str, Any], features: Features) -> None:
    hospital_refs = hospital(features, [*TRAIN, PLAIN, *CHOICES])
    refs = [
        predict.fn(**asking(hospital_refs, settings), configuration="fed", context=NONE),
        predict.fn(**asking(hospital_refs, settings), configuration="text_only", context=NONE, without_image=True),
        answer_baselines.fn(
            hospital="north", **{name: hospital_refs[name] for name in ("cases", "features", "library")}, seed=0
        ),
    ]
    assert {row.confidence for row in read_table(refs[-1].folder / "predictions.parquet", Prediction)} == {None}
    scored = score_hospital.fn(hospital="north", cases=hospital_refs["cases"], predictions=refs, min_cell=1)
    scores = json.loads((scored.folder / "scores.json").read_text())
    shared = read_sums(scored.folder / "sums.parquet")
    assert not Traces(all_texts()).found([scored.folder])
    mine = [row for row in shared if (row.configuration, row.group) == ("fed", "all")]
    assert sum(row.sums["closed_accuracy"] or 0 for row in mine) == scores["tallies"]["fed"]["closed"]["correct"]
    assert [sum(row.sums[kind] or 0 for row in mine) for kind in ("closed", "open")] == [3, 1]
    assert set(scores["calibration"]) == {"fed", "text_only"}
    assert sum(n for n, *_ in scores["calibration"]["fed"]) == 4
    results = assemble([scores], [], Measured(details([(scores, shared)], 0)), about())
    everything = results["configurations"]["fed"]
    assert (everything["choice"]["n"], everything["closed"]["n"], everything["open"]["n"]) == (3, 3, 1)
    assert list(results["baselines"]) == [
        "text_only",
        "majority",
        "question_only",
        "image_and_question",
        "copy_nearest",
    ]
    control = results["baselines"]["text_only"]
    assert (control["choice"]["n"], control["open"]["n"]) == (3, 0)
    assert control["choice"]["accuracy"] is not None
    assert "by option" in markdown(results)


def test_without_options_nothing_is_said_of_them(settings: dict[str, Any], features: Features) -> None:
    hospital_refs = hospital(features, [*TRAIN, PLAIN])
    refs = [
        predict.fn(**asking(hospital_refs, settings), configuration=name, context=NONE, without_image=name != "fed")
        for name in ("fed", "text_only")
    ]
    scored = score_hospital.fn(hospital="north", cases=hospital_refs["cases"], predictions=refs, min_cell=1)
    scores = json.loads((scored.folder / "scores.json").read_text())
    assert set(scores["tallies"]) == {"fed"}
    results = assemble([scores], [], Measured(details([], 0)), about())
    assert results["configurations"]["fed"]["choice"] == {"n": 0, "accuracy": None}
    assert "by option" not in markdown(results)


def test_images_that_others_train_on_count_as_copies(settings: dict[str, Any], features: Features) -> None:
    hospital_refs = hospital(features, [*TRAIN, PLAIN, *CHOICES])
    answered = predict.fn(**asking(hospital_refs, settings), configuration="fed", context=NONE)
    given: dict[str, Any] = {"hospital": "north", "cases": hospital_refs["cases"], "predictions": [answered]}
    scored = score_hospital.fn(**given, min_cell=1, elsewhere=[PLAIN.image_id])
    rows = [row for row in read_sums(scored.folder / "sums.parquet") if row.group == "training_image"]
    asked = Counter(case.image_id for case in (PLAIN, *CHOICES))
    alike = asked.pop(PLAIN.image_id)
    assert sorted(row.value or "" for row in rows) == ["alike", *["none alike"] * len(asked)]
    (found,) = [row for row in rows if row.value == "alike"]
    assert found.sums["n"] == alike


def test_held_out_cases_calibrate_what_is_withheld(settings: dict[str, Any], features: Features) -> None:
    """The second of three confidences is the threshold of coverage 0.5; three are too few for 0.9."""
    hospital_refs = hospital(features, [*TRAIN, PLAIN, *CHOICES])
    named = {"hospital": "north", "configuration": "fed"}
    held_out = answer_held_out.fn(
        **asking(hospital_refs, settings), configuration="fed", context=ONE, holdout=0.75, seed=0
    )
    rows = answers(held_out)
    images = len({case.image_id for case in TRAIN if case.id in rows})
    assert len(rows) == 3
    assert rows.keys() < {case.id for case in TRAIN}
    answered = predict.fn(**asking(hospital_refs, settings), configuration="fed", context=ONE)
    other = predict.fn(**asking(hospital_refs, settings), configuration="base", context=NONE)
    for coverage, threshold in ((0.5, sorted(row.confidence or 0 for row in rows.values())[1]), (0.9, 0.0)):
        ref = count_withheld.fn(
            **named,
            cases=hospital_refs["cases"],
            predictions=[answered, other],
            calibration=held_out,
            coverage=coverage,
            min_cell=1,
        )
        shared = json.loads((ref.folder / "abstention.json").read_text())
        assert (shared["hospital"], shared["held_out_cases"], shared["held_out_images"]) == ("north", 3, images)
        found = abstention([shared], coverage, seed=0, retrieves=True)
        given = sum((row.confidence or 0) >= threshold for row in answers(answered).values())
        assert found["n"] == 4
        assert found["coverage"]["value"] == pytest.approx(given / 4)
    assert "Answers withheld" in markdown(assemble([], [], Measured(details([], 0), abstention=found), about()))


AUTO = ContextSettings(k="auto")


def test_held_out_cases_alone_decide_how_retrieved_ones_count(settings: dict[str, Any], features: Features) -> None:
    found = []
    for cases in (
        [*TRAIN, PLAIN, *CHOICES],
        [*TRAIN, replace(PLAIN, answer="no such thing"), *CHOICES],
        [*(replace(case, answer="no such thing") for case in TRAIN), PLAIN, *CHOICES],
    ):
        given = asking(hospital(features, cases), settings)
        made = tune_retrieval.fn(**given, context=AUTO, mixture=True, holdout=0.75, seed=0)
        found.append(read_tuning(made.folder))
        shutil.rmtree("artifacts/hospitals")
    assert found[0] == found[1] != found[2]
    assert (found[0].cases, found[0].k <= AUTO.most) == (3, True)


@pytest.mark.parametrize("kind", ["k", "mixture", "floor"])
def test_answers_follow_the_tuning(settings: dict[str, Any], features: Features, kind: str) -> None:
    test = [PLAIN, *(replace(case, options=()) for case in CHOICES)]
    given = asking(hospital(features, [*TRAIN, *test]), settings)
    whole = Tuning(k=1, floor=-1, weight=0, temperature=1, cases=9, loss=1, untuned=1)
    changed = {"k": {"k": 0}, "floor": {"floor": 0.6}, "mixture": {"weight": 0.9999999}}[kind]
    with writing("hospitals/north", "tuning", kind) as folder:
        folder.write_json(TUNING, whole.model_copy(update=changed).model_dump())
    given["hospital"] = given["hospital"].model_copy(update={"tuning": folder.ref})
    rows = answers(predict.fn(**given, configuration="fed+rag", context=AUTO))
    if kind == "mixture":
        nearest = {case.id: case.answer for case in TRAIN}
        longest = settings["answering"].max_new_tokens
        assert [row.prediction for row in rows.values() if len(nearest[row.neighbours[0]].split()) < longest // 2]
        for row in rows.values():
            assert nearest[row.neighbours[0]].startswith(row.prediction)
    else:
        assert not any(row.neighbours for row in rows.values())
