"""Strategies against independent computations; orders and state, pure and the same for the same settings."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from engine_samples import same
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine.adapter import State
from tasks.errors import StudyError
from tasks.federate.local import correction, proximal
from tasks.federate.state import ServerState, Update, read_state, write_state
from tasks.federate.strategies.strategy import Strategy, choose
from tasks.settings import LocalRule, PrivacySettings, StrategySettings
from tasks.store import writing

NAMES = get_args(StrategySettings.model_fields["strategy"].annotation)
SHAPES = {"a": (2, 3), "b": (4,)}


def tensors(seed: int, scale: float = 1.0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def updates(seed: int, count: int = 3, group: str = "adapter") -> list[Update]:
    return [Update(f"h{n}", 0, 10 * n + 5, 0.5, {group: tensors(100 * seed + n)}) for n in range(count)]


def strategy(name: str, **given: float) -> Strategy:
    return choose(StrategySettings(strategy=name, privacy=PrivacySettings(sigma=1.0), **given))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_settings_is_a_strategy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where a secret of noise is kept
    chosen = strategy(name)
    for number in (1, 2):
        order = chosen.order(number, "north")
        assert order.round == number
        assert order.start == ("own" if name == "none" else "global")
        assert order == chosen.order(number, "north")
    start = ServerState({"adapter": tensors(0)})
    first, again = (chosen.aggregate(start, updates(1, count=8)) for _ in range(2))
    assert first.groups.keys() == again.groups.keys()
    assert all(same(first.groups[group], again.groups[group]) for group in first.groups)
    assert same(start.groups["adapter"], tensors(0))
    assert ("adapter" in first.groups) == bool(chosen.needs)


def mean(sent: list[Update]) -> dict[str, np.ndarray]:
    weights = [update.samples for update in sent]
    return {
        name: np.average([update.parts["adapter"][name].double().numpy() for update in sent], axis=0, weights=weights)
        for name in SHAPES
    }


@pytest.mark.parametrize("group", ["adapter", "fusion"])
@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_fedavg_and_fedprox_take_the_mean(name: str, group: str) -> None:
    state = strategy(name).aggregate(ServerState({group: tensors(0)}), updates(1, group=group))
    assert state.groups.keys() == {group}
    for tensor, expected in zip(state.groups[group].values(), mean(updates(1)).values(), strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 0.99), st.integers(1, 5))
def test_fedavgm_is_gradient_descent_with_momentum(momentum: float, count: int) -> None:
    """Against PyTorch's SGD, for which a round's step from the mean is the gradient."""
    chosen, state = strategy("fedavgm", server_momentum=momentum), ServerState({"adapter": tensors(0)})
    weights = {name: torch.nn.Parameter(tensor.double()) for name, tensor in tensors(0).items()}
    optimiser = torch.optim.SGD(weights.values(), lr=1.0, momentum=momentum)
    for number in range(count):
        state = chosen.aggregate(state, updates(number))
        for name, value in mean(updates(number)).items():
            weights[name].grad = weights[name].detach() - torch.from_numpy(value)
        optimiser.step()
    for name, weight in weights.items():
        torch.testing.assert_close(state.groups["adapter"][name].double(), weight.detach(), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(
    name=st.sampled_from(["fedadam", "fedyogi"]),
    rate=st.floats(1e-3, 1),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    tau=st.floats(1e-4, 1e-1),
    count=st.integers(1, 5),
)
def test_adam_and_yogi_are_those_of_the_paper(
    name: str, rate: float, beta1: float, beta2: float, tau: float, count: int
) -> None:
    """Algorithm 2 of arXiv 2003.00295, one coordinate at a time."""
    given = {"server_learning_rate": rate, "server_beta1": beta1, "server_beta2": beta2, "server_tau": tau}
    chosen, state = strategy(name, **given), ServerState({"adapter": tensors(0)})
    weights = {
        (key, place): value for key, row in tensors(0).items() for place, value in enumerate(row.flatten().tolist())
    }
    moments = dict.fromkeys(weights, (0.0, tau**2))
    for number in range(count):
        found = mean(updates(number))
        for where in weights:
            key, place = where
            step = float(found[key].flatten()[place]) - weights[where]
            m, v = moments[where]
            m = beta1 * m + (1 - beta1) * step
            if name == "fedadam":
                v = beta2 * v + (1 - beta2) * step**2
            else:
                v = v - (1 - beta2) * step**2 * (1 if v > step**2 else -1 if v < step**2 else 0)
            weights[where] += rate * m / (v**0.5 + tau)
            moments[where] = m, v
        state = chosen.aggregate(state, updates(number))
    assert state.groups.keys() == {"adapter", "adapter-first-moment", "adapter-second-moment"}
    for (key, place), weight in weights.items():
        assert float(state.groups["adapter"][key].flatten()[place]) == pytest.approx(weight, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("fedavgm", {"adapter-momentum"}),
        ("fedadam", {"adapter-first-moment", "adapter-second-moment"}),
        ("fedyogi", {"adapter-first-moment", "adapter-second-moment"}),
        ("scaffold", {"adapter-control"}),
    ],
)
def test_a_resumed_server_goes_on_with_what_it_keeps(
    name: str, kept: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = strategy(name)
    assert "state" in chosen.needs

    def sent(seed: int) -> list[Update]:
        controls = {"adapter-control": tensors(seed + 1)} if name == "scaffold" else {}
        return [replace(each, parts=each.parts | controls) for each in updates(seed)]

    state = chosen.aggregate(ServerState({"adapter": tensors(0)}), sent(1))
    with writing("shared", "adapter", "0") as folder:
        write_state(folder, state)
    read = read_state(folder.ref.folder)
    assert read.groups.keys() == {"adapter"} | kept
    straight, resumed = (chosen.aggregate(each, sent(2)) for each in (state, read))
    assert all(same(straight.groups[group], resumed.groups[group]) for group in straight.groups)
    forgetful = chosen.aggregate(ServerState({"adapter": read.groups["adapter"]}), sent(2))
    assert not all(same(forgetful.groups[group], straight.groups[group]) for group in straight.groups)


@settings(deadline=None, max_examples=20)
@given(steps=st.lists(st.integers(1, 50), min_size=1, max_size=5), samples=st.lists(st.integers(1, 99), min_size=5))
def test_fednova_counts_deltas_by_the_step(steps: list[int], samples: list[int]) -> None:
    start = tensors(0)
    sent = [Update(f"h{n}", 0, samples[n], 0.5, {"adapter": tensors(n + 1)}, each) for n, each in enumerate(steps)]
    found = strategy("fednova").aggregate(ServerState({"adapter": start}), sent).groups["adapter"]
    share = np.array(samples[: len(steps)]) / sum(samples[: len(steps)])
    for name, tensor in found.items():
        by_step = [(start[name] - update.parts["adapter"][name]).double().numpy() / update.steps for update in sent]
        direction = np.tensordot(share, by_step, axes=1)
        expected = start[name].double().numpy() - share @ steps * direction
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_fednova_with_equal_steps_is_fedavg() -> None:
    state = ServerState({"adapter": tensors(0)})
    found, expected = (strategy(name).aggregate(state, updates(1)).groups["adapter"] for name in ("fednova", "fedavg"))
    for name in SHAPES:
        torch.testing.assert_close(found[name], expected[name])


def test_alone_nothing_is_kept_and_a_loss_that_is_not_finite_is_refused() -> None:
    chosen = strategy("none")
    sent = [Update("north", 2, 5, 0.5, {}), Update("south", 2, 5, math.nan, {})]
    assert not chosen.aggregate(ServerState({}), sent[:1]).groups
    with pytest.raises(StudyError, match=r"training loss of round 3 at every hospital, found none at south: lower"):
        chosen.aggregate(ServerState({}), sent)


def test_fedprox_alone_pulls_hospitals_back() -> None:
    assert strategy("fedprox", proximal_mu=0.5).order(1, "north").local == LocalRule(proximal_mu=0.5)
    for name in NAMES:
        rule = strategy(name, proximal_mu=0.5).order(1, "north").local
        assert (correction(rule, tensors(0)) is None) == (name != "fedprox")


def test_the_proximal_correction_is_the_gradient_of_the_distance() -> None:
    start = tensors(0)
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in tensors(1).items()}
    loss = sum((parameter.sin().sum() for parameter in parameters.values()), torch.tensor(0.0))
    pulled = 0.7 / 2 * sum(((parameters[name] - start[name]) ** 2).sum() for name in start)
    expected = torch.autograd.grad(loss + pulled, list(parameters.values()))
    loss = sum((parameter.sin().sum() for parameter in parameters.values()), torch.tensor(0.0))
    loss.backward()
    proximal(0.7, start)(parameters)
    for parameter, gradient in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
