"""A round within a privacy budget: on disk, had again, with figures that add up; and studies that cannot be private."""

import json
from dataclasses import replace
from typing import Any

import pytest
from engine_samples import CASES, same
from test_federate_step import FEDERATION, HOSPITALS, PLAIN, Round, one_round, update_of  # noqa: F401

from tasks.cases.holdout import split_holdout
from tasks.engine.adapter import load_state
from tasks.errors import StudyError
from tasks.federate.privacy.accounting import epsilon
from tasks.federate.privacy.budget import Budget, read_budget, rounds_within
from tasks.federate.privacy.step import count_privacy, plan_privacy, plan_server_privacy
from tasks.federate.step import train_hospital
from tasks.records import Case
from tasks.records.shared_documents import PrivacyDocument
from tasks.report.privacy import NOTHING, privacy_of_run, privacy_rows, privacy_sentence
from tasks.settings import ContextSettings, PrivacySettings, Study
from tasks.store import Ref


def private(**privacy: Any) -> dict[str, Any]:
    settings = PrivacySettings(**{"unit": "example", "accountant": "rdp", **privacy})
    return {"federation": FEDERATION.model_copy(update={"rounds": 3, "batch_size": 1, "privacy": settings})}


def budget_at(at: Round, hospital: str, **privacy: Any) -> Ref:
    return plan_privacy.fn(hospital=hospital, cases=at.hospitals[hospital].cases, seed=0, **private(**privacy))


def trained(at: Round, budget: Ref, number: int = 1) -> Ref:
    given = at.given("north", at.start, FEDERATION, number) | {"context": ContextSettings(k=0), "local": PLAIN}
    return train_hospital.fn(**given | {"hospital": given["hospital"].model_copy(update={"budget": budget})})


def test_a_budget_follows_from_the_training_cases(one_round: Round) -> None:  # noqa: F811
    found = read_budget(budget_at(one_round, "south", epsilon=4).folder)
    training, _ = split_holdout(HOSPITALS["south"], FEDERATION.holdout, 0)
    assert (found.units, found.rate) == (len(training), 1 / len(training))
    assert found.steps == FEDERATION.local_epochs * len(training)
    assert found.rounds == 3
    assert found.spent(3) <= 4 < epsilon(0.99 * found.sigma, found.rate, 3 * found.steps, 1e-5, "rdp")
    one = read_budget(budget_at(one_round, "south", epsilon=4, sigma=0.95 * found.sigma).folder)
    assert one.rounds < 3
    assert one.spent(one.rounds) <= 4 < one.spent(one.rounds + 1)


def test_noise_is_had_again_and_only_for_the_same_round(one_round: Round) -> None:  # noqa: F811
    budget = budget_at(one_round, "north", sigma=1.0)
    first, again, second = trained(one_round, budget), trained(one_round, budget), trained(one_round, budget, 2)
    assert first == again
    states = [load_state(ref.folder) for ref in (first, second, one_round.start)]
    assert not any(same(states[a], states[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    found = update_of(first)
    assert found["steps"] == read_budget(budget.folder).steps
    assert [path.name for path in one_round.start.folder.parents[2].glob("hospitals/*/*.key")] == ["noise.key"]
    (key,) = one_round.start.folder.parents[2].glob("hospitals/north/noise.key")
    key.write_bytes(bytes(32))
    assert not same(load_state(trained(one_round, budget).folder), states[0])


def test_what_was_spent_is_told(one_round: Round) -> None:  # noqa: F811
    budgets = [budget_at(one_round, name, sigma=2.0, epsilon=50) for name in HOSPITALS]
    refs = [
        count_privacy.fn(hospital=name, budget=budget, rounds=2)
        for name, budget in zip(HOSPITALS, budgets, strict=True)
    ]
    shared: list[PrivacyDocument] = [json.loads((ref.folder / "privacy.json").read_text()) for ref in refs]
    assert set(shared[0]) == PrivacyDocument.__required_keys__
    of_run = privacy_of_run(shared)
    assert of_run is not None
    assert of_run["epsilon"] == max(read_budget(each.folder).spent(2) for each in budgets)
    assert of_run["hospitals"]["north"] == shared[0]
    assert f"epsilon {of_run['epsilon']:.2f}, delta 1e-05 (RDP) hide one training case" in privacy_sentence(of_run)
    rows = privacy_rows(of_run)
    assert [row[0] for row in rows] == ["noise of", "north", "south"]
    assert len({len(row) for row in rows}) == 1
    assert privacy_of_run([]) is None
    assert privacy_sentence(None) == NOTHING


def test_a_hospital_is_in_every_round(one_round: Round) -> None:  # noqa: F811
    found = read_budget(plan_server_privacy.fn(hospitals=8, **private(unit="hospital", epsilon=8)).folder)
    assert (found.hospital, found.units, found.rate, found.steps, found.rounds) == ("coordinator", 8, 1.0, 1, 3)
    assert found.spent(3) == epsilon(found.sigma, 1.0, 3, 1e-5, "rdp") <= 8


def test_patients_are_asked_for(one_round: Round) -> None:  # noqa: F811
    with pytest.raises(StudyError, match="Expected a patient with every training case"):
        budget_at(one_round, "north", unit="patient")
    cases: list[Case] = [replace(case, group="one") for case in CASES[:3]]
    refs = one_round.prepare("east", cases, one_round_features(one_round))
    found = plan_privacy.fn(hospital="east", cases=refs.cases, seed=0, **private(unit="patient", sigma=1.0))
    assert read_budget(found.folder).units == 1


def one_round_features(at: Round) -> Any:
    from tasks.engine.vision import FEATURES, load_features

    return load_features(at.hospitals["north"].features.folder / FEATURES)


def test_rounds_stop_where_the_first_hospital_must() -> None:
    north = Budget("north", "example", 100, 0.1, 10, 1.0, 1.0, 1e-5, "rdp", 5)
    south = replace(north, hospital="south", rounds=2)
    assert rounds_within([north, south], 5, 1.0) == 2
    assert rounds_within([north], 3, 1.0) == 3
    with pytest.raises(StudyError, match=r"at least one round .*epsilon=1, found epsilon \d\.\d\d after one at south"):
        rounds_within([north, replace(south, rounds=0)], 5, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "expected retrieval.k 0"),
        ({"retrieval": {"k": "auto"}}, "expected retrieval.k 0"),
        ({"retrieval": {"k": 0, "fusion": "gated"}}, "expected retrieval.fusion concat"),
        ({"retrieval": {"k": 0}, "engine": {"executor": "batched"}}, "expected engine.executor mapped"),
        ({"federation": {"strategy": "dpfedavg"}}, "unit hospital and federation.strategy dpfedavg together"),
    ],
)
def test_studies_that_cannot_be_private_are_refused(changes: dict[str, Any], words: str) -> None:
    federation = {"privacy": {"unit": "example"}} | changes.get("federation", {})
    with pytest.raises(ValueError, match=words):
        Study.model_validate(changes | {"federation": federation})
    Study.model_validate({"federation": {"privacy": {"unit": "patient"}}, "retrieval": {"k": 0}})
    Study.model_validate({"federation": {"privacy": {"unit": "hospital"}, "strategy": "dpfedavg"}})
