"""Noisy training: clipping against a loop, noise and sampling against their distributions, steps against AdamW."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_samples import CASES, IMAGES, prompts_with_neighbours, randomised, same
from hypothesis import given
from hypothesis import strategies as st
from interrupted import breaking_off, checkpoint
from scipy.stats import binom, chisquare, kstest

from tasks.engine.adapter import State
from tasks.engine.base import Base
from tasks.engine.batch import Example, collate, encode
from tasks.engine.engine import Engine
from tasks.engine.loss import answer_loss
from tasks.engine.vision import Features, encode_images
from tasks.errors import StudyError
from tasks.federate.privacy.dp_sgd import add_noise, draw, train_privately
from tasks.federate.privacy.gradients import ClippedSum, clipped_sum, one_by_one, scale
from tasks.federate.privacy.mechanism import Mechanism
from tasks.federate.privacy.noise import Noise
from tasks.federate.privacy.secret import noise_secret
from tasks.federate.privacy.units import units_of
from tasks.store import ROOT
from tasks.store.checkpoints import Checkpoint

SECRET = bytes(range(32))
TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]
"""The last two of the last layer see answer tokens alone."""


@pytest.fixture
def engine(tiny_base: Base) -> Iterator[Engine]:
    made = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=TARGETS)
    made.switch(randomised(made.read(), 1))
    yield made


@pytest.fixture
def units(tiny_base: Base, features: Features) -> list[list[Example]]:
    """Units of one to three examples of unlike lengths."""
    examples = encode(tiny_base, features, prompts_with_neighbours())
    return [examples[:1], examples[1:4], examples[4:5], examples[5:7], examples[7:]]


def gradient_of(engine: Engine, features: Features, unit: list[Example]) -> State:
    """A unit's gradient by autograd alone: the mean over its answer tokens, one example at a time."""
    parameters = engine.named_parameters()
    count = sum(len(example.answer_ids) for example in unit)
    loss = sum(
        answer_loss(engine.base, collate(engine.base, features, [example])) * (len(example.answer_ids) / count)
        for example in unit
    )
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, gradients, strict=True))


def norm_of(state: State) -> float:
    return float(torch.cat([each.double().flatten() for each in state.values()]).norm())


@pytest.mark.parametrize("way", [clipped_sum, one_by_one])
@pytest.mark.parametrize("tokens", [8192, 100, 1])
def test_each_unit_is_clipped_before_the_sum(
    way: ClippedSum, tokens: int, engine: Engine, features: Features, units: list[list[Example]]
) -> None:
    gradients = [gradient_of(engine, features, unit) for unit in units]
    norms = [norm_of(each) for each in gradients]
    clip = sorted(norms)[2]  # some are clipped, others are not
    found, loss, count = way(engine, features, units, tokens, clip)
    for name, total in found.items():
        expected = sum(each[name] * min(1, clip / norm) for each, norm in zip(gradients, norms, strict=True))
        torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5 * clip)
    flat = [example for unit in units for example in unit]
    assert count == sum(len(example.answer_ids) for example in flat)
    losses = [float(answer_loss(engine.base, collate(engine.base, features, [each])).detach()) for each in flat]
    assert loss == pytest.approx(sum(each * len(one.answer_ids) for each, one in zip(losses, flat, strict=True)))
    assert all(each.grad is None for each in engine.parameters())


def test_no_unit_changes_the_sum_by_more_than_the_clipping_norm(
    engine: Engine, features: Features, units: list[list[Example]]
) -> None:
    whole, _, _ = clipped_sum(engine, features, units, 8192, 0.5)
    for left_out in range(len(units)):
        rest, _, _ = clipped_sum(engine, features, units[:left_out] + units[left_out + 1 :], 8192, 0.5)
        assert norm_of({name: whole[name] - rest[name] for name in whole}) <= 0.5 * (1 + 1e-4)


def test_no_units_have_no_gradient(engine: Engine, features: Features) -> None:
    total, loss, count = clipped_sum(engine, features, [], 8192, 1.0)
    assert (loss, count) == (0, 0)
    assert total.keys() == engine.named_parameters().keys()
    assert not any(each.any() for each in total.values())


def test_the_projector_is_clipped_with_the_rest(tiny_base: Base) -> None:
    """It has no copies: units pass one after the other."""
    seen = encode_images(tiny_base, IMAGES, projected=False)
    engine = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=["q_proj"], projector=True)
    examples = encode(tiny_base, seen, prompts_with_neighbours())[:3]
    total, _, _ = clipped_sum(engine, seen, [[each] for each in examples], 8192, 0.1)
    assert norm_of(total) <= 0.3 * (1 + 1e-4)
    assert any("lora" not in name and each.any() for name, each in total.items())


@given(st.floats(0, 1e30), st.floats(1e-6, 1e6))
def test_a_clipped_norm_is_within_its_bound(norm: float, clip: float) -> None:
    factor = float(scale(torch.tensor(norm, dtype=torch.float64), clip))
    assert 0 <= factor <= 1
    assert norm * factor <= clip * (1 + 1e-12)
    assert norm > clip or factor == pytest.approx(1, rel=1e-12)


def test_noise_is_normal() -> None:
    gradients = {name: torch.ones(200, 100) for name in ("b", "a")}
    add_noise(gradients, 3.0, Noise(SECRET, "test"))
    drawn = np.concatenate([each.flatten().numpy() for each in gradients.values()])
    assert kstest(drawn, "norm", args=(1, 3)).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(gradients["a"].flatten(), gradients["b"].flatten())[0, 1]) < 0.03


def test_noise_is_had_again_for_the_same_work_alone() -> None:
    one = Noise(SECRET, "a").normal(100)
    np.testing.assert_array_equal(one, Noise(SECRET, "a").normal(100))
    for other in (Noise(SECRET, "b"), Noise(bytes(32), "a")):
        assert abs(np.corrcoef(one, other.normal(100))[0, 1]) < 0.5
    with pytest.raises(ValueError, match="can be guessed"):
        Noise(b"short", "a")


def test_sampling_is_poisson() -> None:
    """Sizes of steps are binomial, none among them, and each pair of units meets as often as independence has it."""
    units: list[list[Example]] = [[Example((n,), (), ())] for n in range(12)]
    noise, rate, steps = Noise(SECRET, "test"), 0.2, 4000
    drawn = [{unit[0].prompt_ids[0] for unit in draw(units, rate, noise)} for _ in range(steps)]
    sizes = np.bincount([len(each) for each in drawn], minlength=13)[:7]
    expected = binom.pmf(np.arange(7), 12, rate) * steps
    assert sizes[0] > 0
    assert chisquare(sizes, expected * sizes.sum() / expected.sum()).pvalue > 1e-3
    pairs = [sum(a in each and b in each for each in drawn) for a in range(12) for b in range(a)]
    assert np.mean(pairs) == pytest.approx(steps * rate**2, rel=0.05)


def test_a_step_adds_noise_of_the_stated_size(
    engine: Engine, features: Features, units: list[list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the optimiser gets, without the clipped sum and in the noise's own unit, is standard normal."""
    noisy: list[State] = []
    exact: list[State] = []

    def recorded(*given: Any) -> Any:
        found = clipped_sum(*given)
        exact.append({name: each.clone() for name, each in found[0].items()})
        return found

    def record(parameters: Mapping[str, torch.nn.Parameter]) -> None:
        noisy.append({name: gradient(each).clone() for name, each in parameters.items()})

    monkeypatch.setattr("tasks.federate.privacy.dp_sgd.clipped_sum", recorded)
    mechanism, start = Mechanism(rate=0.5, steps=3, clip=0.3, sigma=1.7), engine.read()
    private(engine, features, units, mechanism, correct=record)
    assert not same(engine.read(), start)
    for after, before in zip(noisy, exact, strict=True):
        rest = [(after[name] * 0.5 * len(units) - before[name]).flatten() / (1.7 * 0.3) for name in before]
        assert kstest(torch.cat(rest).numpy(), "norm").pvalue > 1e-3
    assert len(exact) == 3


def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def private(
    engine: Engine, features: Features, units: list[list[Example]], mechanism: Mechanism, **more: Any
) -> tuple[float, int]:
    how = {"tokens": 8192, "learning_rate": 1e-2, "seed": 0} | more
    return train_privately(engine, features, units, mechanism, Noise(SECRET, "test"), **how)


def test_without_noise_the_steps_are_adamw(engine: Engine, features: Features, units: list[list[Example]]) -> None:
    """On the mean of the clipped gradients of all units."""
    start, clip = engine.read(), 0.5
    parameters = engine.named_parameters()
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        gradients = [gradient_of(engine, features, unit) for unit in units]
        for name, parameter in parameters.items():
            clipped = [each[name] * min(1, clip / norm_of(each)) for each in gradients]
            parameter.grad = torch.stack(clipped).mean(dim=0)
        optimiser.step()
    optimiser.zero_grad()
    expected = engine.read()
    engine.switch(start)
    _, steps = private(engine, features, units, Mechanism(rate=1.0, steps=3, clip=clip, sigma=0.0))
    assert steps == 3
    torch.testing.assert_close(engine.read(), expected, rtol=0, atol=2e-4)


def test_the_same_secret_gives_the_same_bytes(engine: Engine, features: Features, units: list[list[Example]]) -> None:
    start, states = engine.read(), []
    for secret in (SECRET, SECRET, bytes(32)):
        engine.switch(start)
        how = {"tokens": 8192, "learning_rate": 1e-2, "seed": 0}
        train_privately(engine, features, units, Mechanism(0.5, 2, 1.0, 1.0), Noise(secret, "test"), **how)
        states.append(engine.read())
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


@pytest.mark.parametrize("number", [1, 2, 5])
def test_broken_off_it_goes_on_with_the_units_and_the_noise_that_it_would_have_had(
    engine: Engine,
    features: Features,
    units: list[list[Example]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    start, noisy = randomised(engine.read(), 1), list[State]()

    def record(parameters: Mapping[str, torch.nn.Parameter]) -> None:
        noisy.append({name: gradient(each).clone() for name, each in parameters.items()})

    def training(kept: Checkpoint | None) -> tuple[State, tuple[float, int]]:
        engine.switch(start)
        counts = private(engine, features, units, Mechanism(0.5, 5, 1.0, 1.0), correct=record, checkpoint=kept)
        return engine.read(), counts

    state, counts = training(None)
    straight = list(noisy)
    noisy.clear()
    with breaking_off(number):
        training(checkpoint())
    del noisy[number - 1 :]  # that of the step that was broken off is never used
    found, again = training(checkpoint())
    assert again == counts and same(found, state)
    assert len(noisy) == 5 and all(map(same, noisy, straight))


@pytest.mark.parametrize("number", [0, 1, 2, 7, 100])
def test_noise_begins_at_any_number(number: int) -> None:
    straight, noise = Noise(SECRET, "test").uniform(number + 5)[number:], Noise(SECRET, "test")
    noise.uniform(3)
    noise.begin_at(number)
    np.testing.assert_array_equal(noise.uniform(5), straight)


def test_units_are_cases_or_patients() -> None:
    """A patient has all cases of all its images, and of images that share a case's patient."""
    patients = ["a", "b", "a", "c", "b", "d", "a", "c"]  # b and c share an image
    cases = [replace(case, group=patient) for case, patient in zip(CASES, patients, strict=True)]
    assert units_of(cases, "example") == [[case] for case in cases]
    found = units_of(cases, "patient")
    assert sorted(case.id for unit in found for case in unit) == sorted(case.id for case in cases)
    for one, other in itertools.combinations(range(len(found)), 2):
        for name in ("group", "image_id"):
            ours, theirs = ({getattr(case, name) for case in found[place]} for place in (one, other))
            assert not ours & theirs
    assert len(found) == 3
    with pytest.raises(StudyError, match=r"Expected a patient with every training case .* found 1 case without"):
        units_of([*cases[1:], CASES[0]], "patient")


def test_a_hospitals_secret_is_its_own_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    north, south = noise_secret("hospitals/north"), noise_secret("hospitals/south")
    assert len(north) == 32
    assert north != south
    assert noise_secret("hospitals/north") == north
    (path,) = (ROOT / "hospitals/north").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
