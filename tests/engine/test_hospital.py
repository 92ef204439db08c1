"""A hospital whose adapter changes the tower: every stage computes with what it sees, not with cached rows."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CASES, IMAGES, randomised, same
from safetensors.torch import save
from test_evaluate_step import TRAIN, hospital

from tasks.answer.step import measure_reliance, predict
from tasks.engine import shared
from tasks.engine.adapter import WEIGHTS, State, load_state
from tasks.engine.base import load_base
from tasks.engine.engine import Engine
from tasks.engine.hospital import open_hospital
from tasks.engine.identity import choose_model
from tasks.engine.prompt import build_queries
from tasks.engine.vision import Features, encode_images
from tasks.explain.examination import answers_by_case, examine, open_examined
from tasks.explain.step import explain_some, find_failures
from tasks.federate.footprint import footprint
from tasks.federate.step import initial_adapter, train_hospital, validate_hospital
from tasks.records import Case, FailureModes, Finding, Image, Prediction, Saliency, Share, read_table, write_table
from tasks.records.federation import HospitalRefs
from tasks.settings import (
    AnsweringSettings,
    ContextSettings,
    FederationSettings,
    LocalRule,
    LoraSettings,
    ModelChoice,
    ModelSettings,
)
from tasks.store import writing

LORA = LoraSettings(r=4, alpha=8, dropout=0.0)
TOWER = LORA.model_copy(update={"tower_targets": ("qkv", "fc2")})
FEDERATION = FederationSettings(rounds=1, local_epochs=2, batch_size=4, learning_rate=1e-2, holdout=0.3)
CONTEXT = ContextSettings(k=1)
ANSWERING = AnsweringSettings(max_new_tokens=6)


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    shared._engine.clear()
    shared._base.clear()


def place(features: Features, model: ModelChoice, lora: LoraSettings, state: State) -> dict[str, Any]:
    """What stages take: a hospital with these cached features and this adapter."""
    cases = [*TRAIN, *(replace(case, split="test") for case in CASES[4:])]
    hospital_refs = hospital(features, cases)
    with writing("hospitals/north", "cases", "1") as folder:
        findings = [Finding(IMAGES[5].id, "mass", "", "", IMAGES[5].data)]
        rows: list[Any] = [("cases", Case, cases), ("images", Image, IMAGES), ("findings", Finding, findings)]
        for name, record, each in rows:
            with folder.open(f"{name}.parquet") as sink:
                write_table(sink, record, each)
    with writing("shared", "adapter", f"{len(state)}-{model.content[-6:]}") as adapter:
        adapter.write(WEIGHTS, save(dict(sorted(state.items())), {"format": "pt"}))
    refs = HospitalRefs(name="north", adapter=adapter.ref, **hospital_refs | {"cases": folder.ref})
    return {"hospital": refs, "model": model, "lora": lora, "context": CONTEXT}


def results(given: dict[str, Any]) -> dict[str, list[Any]]:
    """What every stage that runs the model at a hospital writes."""
    answering: dict[str, Any] = {"answering": ANSWERING}
    answered = predict.fn(**given, **answering, configuration="fed+rag")
    relied = measure_reliance.fn(**given, **answering, count=4, seed=0)
    failed = find_failures.fn(**given, reliance=relied, tokens=8192, count=3, seed=0)
    explained = explain_some.fn(**given, **answering, predictions=answered, counts=[2], seed=0)
    round_one: dict[str, Any] = {"federation": FEDERATION, "round_number": 1, "seed": 0}
    validated = validate_hospital.fn(**given, **round_one, min_cell=1)
    return {
        "answers": read_table(answered.folder / "predictions.parquet", Prediction),
        "perturbed": read_table(relied.folder / "predictions.parquet", Prediction),
        "failures": read_table(failed.folder / "failures.parquet", FailureModes),
        "maps": read_table(explained.folder / "saliency.parquet", Saliency),
        "shares": read_table(explained.folder / "shares.parquet", Share),
        "observations": observations(given, read_table(relied.folder / "predictions.parquet", Prediction)),
        "loss": [json.loads((validated.folder / "validation.json").read_text())["loss"]],
    }


def observations(given: dict[str, Any], relied: list[Prediction]) -> list[float]:
    """What failure modes are judged by, of each answer: falls of its log-probability, and a map."""
    hospital, answers = given["hospital"], answers_by_case(relied)
    hospital_data = open_hospital(hospital)
    test = [case for case in hospital_data.cases if case.id in answers]
    queries = build_queries(test, hospital_data.prompts(test, CONTEXT), hospital_data.cases, hospital_data.neighbours)
    with shared.shared_engine(given["model"], given["lora"]) as engine:
        engine.switch(load_state(hospital.adapter.folder))
        seen = open_examined(engine, hospital_data, hospital.cases.folder, queries, CONTEXT, tokens=8192)
        found = [examine(seen, each, answers[each.case.id]) for each in queries]
    return [number for each in found for number in (each.blank_fall, each.border_fall, *each.weights.ravel())]


def numbers(row: Any) -> list[float]:
    """The computed numbers of a row."""
    if isinstance(row, Prediction):
        return [row.confidence]  # type: ignore[list-item]
    return [*row.weights] if isinstance(row, Saliency) else [row.share] if isinstance(row, Share) else [row]


def words(row: Any) -> Any:
    """All else of a row."""
    if isinstance(row, Prediction):
        return replace(row, confidence=None)
    return replace(row, weights=()) if isinstance(row, Saliency) else replace(row, share=0.0)


def test_all_stages_compute_with_the_adapted_tower(tiny_folder: Path, tmp_path: Path, features: Features) -> None:
    """Against an ordinary base into which the adapter was merged, with its own cached features."""
    model = choose_model(ModelSettings(name=str(tiny_folder), device="cpu"))
    base = load_base(str(tiny_folder), device="cpu")
    engine = Engine(base, 4, 8, 0.0, LORA.targets, tower_targets=TOWER.tower_targets)
    state = randomised(engine.read(), 1, 0.1)
    engine.switch(state)
    engine.merge()
    for part in (base.model, base.tokenizer, base.image_processor):
        part.save_pretrained(tmp_path / "merged")
    found = results(place(features, model, TOWER, state))
    merged = choose_model(ModelSettings(name=str(tmp_path / "merged"), device="cpu"))
    fresh = load_state(initial_adapter.fn(model=merged, lora=LORA, seed=0).folder)
    expected = results(place(encode_images(base, IMAGES), merged, LORA, fresh))
    assert len({row.prediction for row in found["answers"]}) > 1
    assert found.keys() == expected.keys()
    for name, rows in found.items():
        others = expected[name]
        assert rows and len(rows) == len(others)
        if name == "failures":
            assert rows == others
            continue
        if name not in ("observations", "loss"):
            assert [words(row) for row in rows] == [words(row) for row in others]
        for row, other in zip(rows, others, strict=True):
            assert numbers(row) == pytest.approx(numbers(other), abs=1e-4), name
    plain = results(place(features, model, LORA, {name: state[name] for name in fresh}))
    assert all(
        found[name] != plain[name] for name in ("answers", "perturbed", "maps", "shares", "observations", "loss")
    )


def test_training_does_not_read_cached_rows(tiny_folder: Path, features: Features) -> None:
    """Neither does its measured copy; both train what plain `train` would from pixels (tests/engine/test_tower.py)."""
    model = choose_model(ModelSettings(name=str(tiny_folder), device="cpu"))
    start = load_state(initial_adapter.fn(model=model, lora=TOWER, seed=0).folder)
    other = replace(features, rows=torch.randn(features.rows.shape))
    trained, measured = [], []
    for each in (features, other):
        given = place(each, model, TOWER, start) | {"federation": FEDERATION, "seed": 0}
        update = train_hospital.fn(**given, local=LocalRule(), round_number=1)
        trained.append(load_state(update.folder))
        request = {name: value if name == "seed" else value.model_dump(mode="json") for name, value in given.items()}
        footprint(request)
        (engine,) = shared._engine.values()
        measured.append(engine.read())
    assert same(*trained) and same(*measured)
    moved = {name for name, tensor in trained[0].items() if not torch.equal(tensor, start[name])}
    assert any(".visual." in name for name in moved) and any(".language_model." in name for name in moved)
    assert not same(trained[0], measured[0])
