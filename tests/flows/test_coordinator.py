"""The rounds of a federation, with strategies as they are and training that only writes down what it is given."""

import logging
from pathlib import Path
from typing import Any

import pytest

from flows.coordinator import Round, rounds, tell_quarantined, wire
from flows.fed_rag import fed_rag
from flows.losses import round_table
from flows.runtimes.runtime import Trained
from tasks.errors import StudyError
from tasks.federate.strategies.strategy import choose
from tasks.records.federation import ADAPTER_FILE, CONTROL_FILE, Order
from tasks.settings import StrategySettings, Study
from tasks.store import Ref, writing

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


def test_who_is_left_out_is_told_in_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with writing("shared", "adapter", "0") as folder:
        folder.write_json("round.json", {"quarantined": {"south": "not finite (w)"}})
    done = Round(2, [], [], Trained([], 0.0), folder.ref, folder.ref, [])
    with caplog.at_level(logging.WARNING, logger="fed_rag"):
        tell_quarantined(done)
    assert caplog.messages == ["south is left out of round 2: not finite (w)"]
    assert round_table([ROW | {"quarantined": {"south": "not finite (w)"}}])[0]["left out"] == "south (not finite (w))"
    assert round_table([ROW | {"quarantined": {}}])[0]["left out"] == "none"


ROW = {"round": 1, "train_loss": 1.0, "eval_loss": None, "samples": {"north": 5}, "seconds": 1.0}
ROW |= {"bytes_down": 0, "bytes_up": 0, "lost_share": {}}


def test_control_variates_travel_and_what_the_server_keeps_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {ADAPTER_FILE: 8, CONTROL_FILE: 4, "adapter-momentum.safetensors": 2, "round.json": 1}
    with writing("shared", "adapter", "0") as folder:
        for name, count in files.items():
            folder.write(name, b"0" * count)
    for name, total in (("fedavg", 9), ("scaffold", 13)):
        strategy = choose(StrategySettings(strategy=name))  # type: ignore[arg-type]
        orders = [strategy.order(1, hospital) for hospital in NAMES]
        done = Round(1, orders, [folder.ref] * 2, Trained([folder.ref] * 2, 0.0), folder.ref, folder.ref, [])
        assert wire(strategy, done) == {"bytes_down": 2 * total, "bytes_up": 2 * total}


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ({"strategy": "bulyan"}, r"at least 7 hospitals for federation\.strategy=bulyan"),
        ({"strategy": "fednova", "secure_aggregation": True}, "found fednova, which needs counts, sum"),
    ],
)
def test_a_strategy_that_cannot_work_is_refused_before_anything_is_done(
    federation: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study.model_validate({"federation": federation, "partition": {"hospitals": 6}})
    with pytest.raises(StudyError, match=said):
        fed_rag.fn(study)
    assert not Path("artifacts").exists()
