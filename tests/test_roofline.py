"""What the roofline counts, held against counts by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import roofline
from benchmarks.busy import BUSY, verdict
from benchmarks.roofline import Operator, Split, Work
from benchmarks.traffic import Meter

F, LONG = 4, 8
"""Bytes of a float32 and of an int64."""
A, B, ROW = torch.randn(6, 5), torch.randn(6, 5), torch.randn(5)
TABLE, PLACES = torch.randn(100, 5), torch.tensor([3, 1, 3])


def ticking() -> Callable[[], float]:
    """A clock that is a second later at each look."""
    times = iter(range(10_000))
    return lambda: float(next(times))


def metered(run: Callable[[], Any]) -> Meter:
    with Meter(ticking()) as meter:
        run()
    return meter


@pytest.mark.parametrize(
    ("run", "bytes_moved"),
    [
        (lambda: A + B, 3 * 30 * F),
        (lambda: A * 2, 2 * 30 * F),
        (lambda: A + ROW, (30 + 5 + 30) * F),
        (lambda: A + ROW.expand(6, 5), (30 + 5 + 30) * F),
        (lambda: A.sum(), 31 * F),
        (lambda: A.clone().add_(B), (2 * 30 + 3 * 30) * F),
        (lambda: A.clone().copy_(B), (2 * 30 + 2 * 30) * F),
        (lambda: A.clone().zero_(), (2 * 30 + 30) * F),
        (lambda: torch.zeros_like(A), 30 * F),
        (lambda: A.new_ones(4), 4 * F),
        (lambda: torch.empty(9), 0),
        (lambda: torch.empty_like(A), 0),
        (lambda: A.view(-1, 10).t()[1:], 0),
        (lambda: A.detach().transpose(0, 1).unsqueeze(0), 0),
        (lambda: A.double(), 30 * F + 30 * 2 * F),
        (lambda: nn.functional.embedding(PLACES, TABLE), 2 * 15 * F + 3 * LONG),
        (lambda: TABLE[PLACES], 2 * 15 * F + 3 * LONG),
        (lambda: torch.cat([A, B]), (60 + 60) * F),
        (lambda: torch._foreach_add_([A.clone(), B.clone()], 1.0), 2 * (2 * 30 + 2 * 30) * F),
    ],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_bytes_of_operators_are_those_counted_by_hand(run: Callable[[], Any], bytes_moved: int, mode: Any) -> None:
    with mode():
        assert sum(metered(run).bytes.values()) == bytes_moved


def test_products_are_no_traffic() -> None:
    weight = torch.randn(5, 7, requires_grad=True)
    meter = metered(lambda: torch.tanh(A @ weight).sum().backward())
    assert meter.calls["aten::mm"] == 2  # forward, and the gradient of the weight
    assert sum(meter.products_of["aten::mm"].values()) == sum(meter.products.values()) == 2
    assert "aten::mm" not in meter.bytes and meter.products_of.keys() == {"aten::mm"}
    assert meter.bytes["aten::tanh"] == 2 * 42 * F
    assert meter.bytes["aten::tanh_backward"] == (2 * 42 + 1) * F  # the gradient of a sum is one number


def test_each_operator_is_timed() -> None:
    meter = metered(lambda: (A + B) * B * B)
    assert meter.calls == {"aten::add": 1, "aten::mul": 2}
    assert meter.seconds == {"aten::add": 1, "aten::mul": 2}


def test_the_parts_sum_up_to_what_was_measured() -> None:
    slow, fast = Operator("slow", 2, seconds=3.0, bound=1.0), Operator("fast", 1, seconds=1.0, bound=2.0)
    found = Split("a step", 8.0, 3.0, 1.0, gflop=6.0, gigabytes=0.5, turns=(0.4, 0.6), operators=(slow, fast))
    assert found.products + found.memory + found.rest == found.seconds
    assert (found.rest, found.reached, slow.beyond, fast.beyond) == (4.0, 0.5, 2.0, -1.0)
    shares = [float(str(cell)) for cell in roofline.parts_table(found).columns[-1].cells]
    assert sum(shares[:-1]) == shares[-1] == 1
    assert (found.to_json()["rest"], found.to_json()["reached"]) == (4.0, 0.5)


def test_work_is_split_into_its_products_its_traffic_and_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """At known speeds: a product takes 5 seconds, and memory moves a number a second. Two units are done."""
    monkeypatch.setattr(roofline, "quickest", lambda product, clock: 5.0)
    monkeypatch.setattr(roofline, "bandwidth", lambda clock: float(F))
    monkeypatch.setattr(roofline, "seconds_of", lambda run, clock: 200.0)
    found = roofline.split(Work("product and sum", lambda: (A @ B.t()) + 1, units=2))
    assert (found.seconds, found.products, found.memory, found.rest) == (100, 2.5, 36, 61.5)
    assert found.gflop == 2 * 6 * 5 * 6 / 1e9 / 2 and found.gigabytes == 2 * 36 * F / 1e9 / 2
    assert found.turns == ((5 + 72) / 200,) * roofline.REPEATS
    assert {each.name: (each.calls, each.bound) for each in found.operators if each.bound} == {
        "aten::mm": (0.5, 2.5),
        "aten::add": (0.5, 36),
    }


def test_there_is_no_verdict_on_busy_cores() -> None:
    assert [verdict(met, BUSY) for met in (True, False, None)] == ["yes", "no", ""]
    assert verdict(True, BUSY + 0.01) == "not judged: busy cores"
    assert verdict(True, None) == "not judged: use of the cores unknown"
