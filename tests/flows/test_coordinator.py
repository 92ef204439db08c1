"""The rounds of a federation, with strategies as they are and training that only writes down what it is given."""

from typing import Any

import pytest

from flows.coordinator import Round, rounds
from flows.runtimes.runtime import Trained
from tasks.federate.strategies.strategy import choose
from tasks.records.federation import Order
from tasks.settings import StrategySettings
from tasks.store import Ref

NAMES = ["north", "south"]


def ref(name: str) -> Ref:
    return Ref(path=f"shared/{name}/0", digest=name)


def run(name: str, count: int = 3) -> tuple[list[Round], list[Any]]:
    """The rounds, and what training and aggregation were called with, in their order."""
    calls: list[Any] = []

    def train(orders: list[Order], starts: list[Ref]) -> Trained:
        calls.append((orders, starts))
        return Trained([ref(f"{hospital}-{orders[0].round}") for hospital in NAMES], 1.0)

    def aggregate(**given: Any) -> Ref:
        calls.append(given)
        return ref(f"server-{given['round_number']}")

    strategy = choose(StrategySettings(strategy=name))  # type: ignore[arg-type]
    return list(rounds(strategy, count, NAMES, ref("start"), train, aggregate)), calls


@pytest.mark.parametrize("name", ["fedavg", "none"])
def test_the_server_aggregates_what_hospitals_trained_from_what_they_were_given(name: str) -> None:
    found, calls = run(name)
    held, state = [ref("start")] * 2, ref("start")
    for number, each in enumerate(found, start=1):
        orders, starts = calls[2 * number - 2]
        assert [order.round for order in orders] == [number, number]
        assert starts == each.starts == held
        updates = [ref(f"{hospital}-{number}") for hospital in NAMES]
        assert calls[2 * number - 1] == {"state": state, "updates": updates, "round_number": number}
        state = each.state
        assert state == ref(f"server-{number}")
        held = updates if name == "none" else [state, state]
        assert each.following == held
    assert [each.number for each in found] == [1, 2, 3]


def test_a_round_does_not_begin_before_it_is_requested() -> None:
    """A study stores and shows a round before the next one starts."""
    strategy, begun = choose(StrategySettings()), list[int]()

    def train(orders: list[Order], starts: list[Ref]) -> Trained:
        begun.append(orders[0].round)
        return Trained(starts, 0.0)

    for each in rounds(strategy, 2, NAMES, ref("start"), train, lambda **_: ref("server")):
        assert begun[-1] == each.number
