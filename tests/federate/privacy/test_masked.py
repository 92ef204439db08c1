"""The mean by a secure sum is the plain mean, whoever diverges, and on disk it is one update of all together."""

import json
import math
from typing import Any

import pytest
import torch
from engine_samples import randomised, same
from hypothesis import given, settings
from hypothesis import strategies as st
from test_federate_step import HOSPITALS, Round, one_round, update_of  # noqa: F401

from flows.suitable import refuse_single_updates
from tasks.engine.adapter import load_state
from tasks.errors import StudyError
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.means import weighted_mean
from tasks.federate.privacy.masked import masked_mean
from tasks.federate.privacy.step import sum_in_secret
from tasks.federate.state import Update
from tasks.records.federation import TOGETHER
from tasks.settings import FederationSettings, PrivacySettings, Study

SHAPES = {"b": torch.zeros(2, 3), "a": torch.zeros(4)}


def sent(states: list[dict[str, torch.Tensor]], samples: list[int], loss: float = 0.5) -> list[Update]:
    """One group of tensors and another, as of a strategy that has its own."""
    return [
        Update(f"h{n}", 0, count, loss * (n + 1), {"adapter": state, "other": {"a": -state["a"]}}, 10)
        for n, (state, count) in enumerate(zip(states, samples, strict=True))
    ]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=2, max_size=6), st.integers(0, 2**31))
def test_it_is_the_weighted_mean(samples: list[int], seed: int) -> None:
    states = [randomised(SHAPES, seed + n, scale=3.0) for n in range(len(samples))]
    found, counts = masked_mean(sent(states, samples))
    expected, mean = weighted_mean(states, samples), found.groups["adapter"]
    assert mean.keys() == expected.keys()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.groups["other"]["a"], -mean["a"], rtol=1e-6, atol=1e-9)
    assert (counts.hospital, counts.samples, counts.steps) == (TOGETHER, sum(samples), 10 * len(samples))
    losses = sum(count * 0.5 * (n + 1) for n, count in enumerate(samples))
    assert counts.loss == pytest.approx(losses / sum(samples))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_hospital_that_diverged_is_left_out(bad: float) -> None:
    states = [randomised(SHAPES, n) for n in range(3)]
    states[1]["a"][2] = bad
    found, counts = masked_mean(sent(states, [3, 5, 7]))
    mean = found.groups["adapter"]
    expected = weighted_mean([states[0], states[2]], [3, 7])
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-9)
    assert counts.samples == 10
    with pytest.raises(StudyError, match="Expected at least 2 hospitals in the secure sum round 1, found 1"):
        masked_mean(sent(states[:2], [3, 5]))


def test_the_server_gets_one_update_of_all(one_round: Round) -> None:  # noqa: F811
    updates = [one_round.train(hospital) for hospital in HOSPITALS]
    together, again = (sum_in_secret.fn(updates=updates, round_number=1) for _ in range(2))
    assert together == again  # masks differ, their sum does not
    assert update_of(together)["hospital"] == TOGETHER
    plain, secret = one_round.aggregate(updates), one_round.aggregate([together], names=[TOGETHER])
    adapters = [load_state(ref.folder) for ref in (plain, secret)]
    for name, tensor in adapters[1].items():
        torch.testing.assert_close(tensor, adapters[0][name], rtol=1e-6, atol=1e-9)
    assert not same(adapters[1], load_state(one_round.start.folder))
    rows = [json.loads((ref.folder / "round.json").read_text()) for ref in (plain, secret)]
    assert (rows[1]["quarantined"], rows[1]["lost_share"]) == ({}, {})
    assert rows[1]["samples"] == {TOGETHER: sum(rows[0]["samples"].values())}
    assert rows[1]["train_loss"] == pytest.approx(rows[0]["train_loss"])


def test_strategies_that_see_single_updates_are_refused() -> None:
    for name in ("fedavg", "fedavgm", "fedprox", "fedadam", "fedyogi", "scaffold"):
        settings = FederationSettings(strategy=name)  # type: ignore[arg-type]
        refuse_single_updates(choose_rule(settings), settings)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"strategy": "dpfedavg", "privacy": PrivacySettings(unit="hospital")}, "found dpfedavg, which needs updates"),
        ({"strategy": "none"}, "found none, which needs nothing"),
        ({"strategy": "fednova"}, "found fednova, which needs counts, sum"),
        ({"strategy": "krum"}, "found krum, which needs updates"),
        ({"lora_mean": "product"}, "found fedavg with lora_mean product, which needs sum, updates"),
    ]
    for changed, said in refused:
        settings = FederationSettings(**changed)
        with pytest.raises(StudyError, match=said):
            refuse_single_updates(choose_rule(settings), settings)
    for changes in ({"partition": {"hospitals": 1}}, {"retrieval": {"fusion": "gated"}}):
        with pytest.raises(ValueError, match="expected"):
            Study.model_validate({"federation": {"secure_aggregation": True}} | changes)
