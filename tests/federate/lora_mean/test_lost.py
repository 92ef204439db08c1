"""Products of factors and the share that a mean loses, against whole matrices in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.federate.lora_mean.lost import lost_share, lost_shares
from tasks.federate.lora_mean.products import Product, factors_of, layers, product_of, summed
from tasks.federate.means import weighted_mean
from tasks.federate.state import ServerState, Update

LAYERS = {"m.one": (13, 11), "m.two": (10, 15)}


def adapter(seed: int, r: int = 3, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Random factors of two layers, and a tensor that is no LoRA."""
    generator = torch.Generator().manual_seed(seed)
    state = {"m.projector.weight": torch.randn(2, 2, generator=generator)}
    for name, (out, into) in LAYERS.items():
        state[f"{name}.lora_A.weight"] = scale * torch.randn(r, into, generator=generator)
        state[f"{name}.lora_B.weight"] = scale * torch.randn(out, r, generator=generator)
    return state


def near(start: dict[str, torch.Tensor], seed: int, drift: float) -> dict[str, torch.Tensor]:
    """An adapter that moved from another by a share of the norm of each factor."""
    steps = adapter(seed)
    return {name: tensor + drift * steps[name] * tensor.norm() / steps[name].norm() for name, tensor in start.items()}


def lost_by_factors(start: dict[str, torch.Tensor], sent: list[dict[str, torch.Tensor]], samples: list[int]) -> float:
    """As a round tells it."""
    updates = [Update("h", 0, count, 0.5, {"adapter": state}) for count, state in zip(samples, sent, strict=True)]
    state = ServerState({"adapter": start})
    return lost_shares("factors", state, updates, state)["lost_share"]["factors"]


def dense(state: dict[str, torch.Tensor], layer: str) -> np.ndarray:
    b, a = (state[f"{layer}.lora_{each}.weight"].double().flatten(1).numpy() for each in "BA")
    return np.asarray(b @ a)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(0, 12))
def test_sums_norms_and_truncations_are_those_of_matrices(seed: int, count: int, rank: int) -> None:
    states, weights = [adapter(seed + each) for each in range(count)], [0.5 + each for each in range(count)]
    for layer in LAYERS:
        whole = sum(weight * dense(state, layer) for weight, state in zip(weights, states, strict=True))
        product = summed([product_of(state, layer) for state in states], weights)
        np.testing.assert_allclose((product.b @ product.a).numpy(), whole, atol=1e-12)
        assert product.norm() == pytest.approx(np.linalg.norm(whole), rel=1e-12)
        kept, rest = product.truncated(rank)
        u, values, v = np.linalg.svd(whole, full_matrices=False)
        np.testing.assert_allclose((kept.b @ kept.a).numpy(), (u[:, :rank] * values[:rank]) @ v[:rank], atol=1e-10)
        np.testing.assert_allclose((kept.b @ kept.a + rest.b @ rest.a).numpy(), whole, atol=1e-10)
        assert kept.b.shape[1] == len(kept.a) == rank
        assert len(rest.a) == max(np.linalg.matrix_rank(whole) - rank, 0)


def test_nothing_is_truncated_to_nothing() -> None:
    kept, rest = Product(torch.zeros(4, 2).double(), torch.ones(2, 5).double()).truncated(2)
    assert kept.norm() == 0
    assert rest.a.shape == (0, 5)


def test_factors_of_a_convolution_keep_their_shape() -> None:
    state = {"c.lora_A.weight": torch.randn(2, 5, 1, 1), "c.lora_B.weight": torch.randn(3, 2, 1, 1)}
    (layer,) = layers(state)
    again = factors_of(product_of(state, layer), layer, state)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    wide = factors_of(product_of(state, layer).padded(4), layer, state)
    assert [tuple(each.shape) for each in wide.values()] == [(4, 5, 1, 1), (3, 4, 1, 1)]


@pytest.mark.parametrize("drift", [0.01, 0.1, 0.3, 1.0])
def test_the_lost_share_is_that_of_whole_matrices(drift: float) -> None:
    start, samples = adapter(0), [30, 10, 5]
    sent = [near(start, each, drift) for each in (1, 2, 3)]
    mean = weighted_mean(sent, samples)
    missed, moved = 0.0, 0.0
    for layer in LAYERS:
        true = np.average(np.stack([dense(state, layer) for state in sent]), axis=0, weights=samples)
        missed += np.linalg.norm(true - dense(mean, layer)) ** 2
        moved += np.linalg.norm(true - dense(start, layer)) ** 2
    assert lost_by_factors(start, sent, samples) == pytest.approx(np.sqrt(missed / moved), rel=1e-4)


def test_the_lost_share_is_of_second_order_in_drift() -> None:
    start = adapter(0)
    small, large = (
        lost_by_factors(start, [near(start, each, drift) for each in (1, 2, 3)], [1, 1, 1]) for drift in (0.001, 0.01)
    )
    assert large / small == pytest.approx(10, rel=0.1)  # relative to an update that is of first order


def test_what_is_lost_of_nothing_or_by_one_hospital() -> None:
    start = adapter(0)
    assert lost_by_factors(start, [start, start], [1, 2]) == 0
    assert lost_by_factors(start, [near(start, 1, 0.3)], [7]) < 1e-6
    state = ServerState({"adapter": start})
    assert lost_share(state, [near(start, 1, 0.3)], [7], state) == pytest.approx(1)
    assert lost_shares("factors", state, [], ServerState({})) == {"lost_share": {}}
