"""FedAvg against `numpy.average`."""

import numpy as np
import pytest
import torch
from engine_samples import randomised, same
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine.adapter import State
from tasks.engine.engine import Engine
from tasks.errors import StudyError
from tasks.federate.means import weighted_mean

SHAPES = {"a.lora_A.weight": (2, 5), "a.lora_B.weight": (3, 2), "b.lora_A.weight": (1, 1)}


def state(seed: int, scale: float = 1.0) -> State:
    return randomised({name: torch.empty(shape) for name, shape in SHAPES.items()}, seed, scale)


HOSPITALS = st.lists(st.tuples(st.integers(0, 999), st.integers(1, 100_000)), min_size=1, max_size=6)


@settings(deadline=None)
@given(HOSPITALS, st.sampled_from([1e-4, 1.0]))
def test_fedavg_is_the_weighted_mean(hospitals: list[tuple[int, int]], scale: float) -> None:
    states, samples = [state(seed, scale) for seed, _ in hospitals], [count for _, count in hospitals]
    before = [{name: tensor.clone() for name, tensor in one.items()} for one in states]
    mean = weighted_mean(states, samples)
    assert mean.keys() == SHAPES.keys()
    for name, tensor in mean.items():
        expected = np.average(np.stack([one[name].numpy() for one in states]), axis=0, weights=samples)
        assert tensor.dtype == torch.float32
        assert tuple(tensor.shape) == SHAPES[name]
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-6 * scale)
    assert all(same(one, kept) for one, kept in zip(states, before, strict=True))
    assert samples == [count for _, count in hospitals]


@settings(deadline=None)
@given(HOSPITALS, st.randoms())
def test_the_order_of_hospitals_does_not_matter(hospitals: list[tuple[int, int]], random: object) -> None:
    turned = list(hospitals)
    random.shuffle(turned)  # type: ignore[attr-defined]
    one, other = (weighted_mean([state(s) for s, _ in rows], [n for _, n in rows]) for rows in (hospitals, turned))
    for name in SHAPES:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(1, 100_000), min_size=1, max_size=50))
def test_equal_updates_come_through_to_the_bit(seed: int, samples: list[int]) -> None:
    """Products or sums in float32 would lose digits."""
    assert same(weighted_mean([state(seed)] * len(samples), samples), state(seed))


def test_a_hospital_counts_by_its_samples() -> None:
    one, other = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
    assert weighted_mean([one, other], [3, 1])["w"].tolist() == [0.25]
    assert weighted_mean([one, other], [1, 3])["w"].tolist() == [0.75]


@pytest.mark.parametrize("samples", [[3, 0], [-1, 5], [0]])
def test_hospitals_without_samples_are_refused(samples: list[int]) -> None:
    with pytest.raises(StudyError, match=rf"at least one sample, found {min(samples)}\.$"):
        weighted_mean([state(n) for n in range(len(samples))], samples)


@pytest.mark.parametrize("samples", [[1, 2, 3], [1]])
def test_every_state_needs_its_count(samples: list[int]) -> None:
    with pytest.raises(ValueError, match="zip"):
        weighted_mean([state(0), state(1)], samples)


def test_a_hospital_of_another_adapter_is_not_averaged() -> None:
    with pytest.raises(KeyError):
        weighted_mean([state(0), {"a.lora_A.weight": torch.zeros(2, 5)}], [1, 1])


def test_the_mean_is_switched_on(engine: Engine) -> None:
    mean = weighted_mean([randomised(engine.read(), seed) for seed in (1, 2, 3)], [5, 1, 2])
    engine.switch(mean)
    assert same(engine.read(), mean)
