"""Dropout with cheap masks: shares, means and independence as torch's own, and the same for any number of threads."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from scipy.stats import binomtest, chisquare

from tasks.engine.base import Base
from tasks.engine.engine import Engine
from tasks.engine.fast.dropout import STEPS, Dropout, dropped, mask

NUMBERS = 400_003
"""No multiple of four: the last draw is not used up."""


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.5, 0.9])
def test_so_many_numbers_are_zero_and_the_mean_stays(share: float) -> None:
    torch.manual_seed(1)
    found = mask((NUMBERS,), share)
    zeros = int((found == 0).sum())
    assert binomtest(zeros, NUMBERS, share).pvalue > 1e-3
    (kept,) = found[found > 0].unique().tolist()
    exact = 1 - round(share * STEPS) / STEPS
    assert kept * exact == pytest.approx(1, abs=1e-6), "the mean of the mask is exact for the rounded share"
    assert kept == pytest.approx(1 / (1 - share), rel=STEPS**-1 / (1 - share))


def test_numbers_of_one_draw_are_as_independent_as_any() -> None:
    torch.manual_seed(2)
    places = (mask((NUMBERS // 4 * 4,), 0.5) > 0).view(-1, 4).long() @ torch.tensor([1, 2, 4, 8])
    assert chisquare(places.bincount(minlength=16).numpy()).pvalue > 1e-3


def test_of_the_gradient_the_same_numbers_are_zero() -> None:
    torch.manual_seed(3)
    x = torch.rand(50, 40, requires_grad=True)
    made = dropped(x, 0.4)
    made.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), made.detach())
    assert 0 < int((made == 0).sum()) < made.numel()


def test_threads_change_nothing_and_seeds_do() -> None:
    def drawn(seed: int, threads: int) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        try:
            return mask((NUMBERS,), 0.1)
        finally:
            torch.set_num_threads(before)

    assert torch.equal(drawn(5, 1), drawn(5, 2))
    assert not torch.equal(drawn(5, 1), drawn(6, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_drops_while_it_learns_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    layer, x = Dropout(0.25), torch.ones(1000, dtype=dtype)
    learns, answers = layer.train()(x), layer.eval()(x)
    assert learns.dtype == dtype
    assert set(learns.tolist()) == {0.0, torch.tensor(1 / 0.75, dtype=dtype).item()}
    assert torch.equal(answers, x)


def test_an_adapters_layers_draw_so(tiny_base: Base) -> None:
    engine = Engine(tiny_base, r=4, alpha=8, dropout=0.3, targets=["q_proj", "v_proj"])
    try:
        used = [layer.lora_dropout["default"] for layer in engine.peft.modules() if isinstance(layer, LoraLayer)]
        assert used
        assert {type(each) for each in used} == {Dropout}
        assert {each.p for each in used if isinstance(each, Dropout)} == {0.3}
    finally:
        engine.remove()
