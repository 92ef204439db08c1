"""The rounds of a federation, with strategies as they are and training that only writes down what it is given."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.coordinator import Round, reasons, rounds, tell_missing, wire
from flows.fed_rag import fed_rag
from flows.losses import round_table
from flows.runtimes.runtime import Trained
from flows.suitable import taking_part as who_takes_part
from tasks.errors import StudyError
from tasks.federate.participation import Participation
from tasks.federate.strategies.strategy import choose
from tasks.records.federation import ADAPTER_FILE, CONTROL_FILE, Order
from tasks.settings import ParticipationSettings, StrategySettings, Study
from tasks.store import Ref, writing

NAMES = ["north", "south"]


def ref(name: str) -> Ref:
    return Ref(path=f"shared/{name}/0", digest=name)


def taking_part(rounds: int, names: list[str] = NAMES, **settings: Any) -> Participation:
    return Participation(ParticipationSettings(**settings), names, rounds, seed=0)


def run(name: str, participation: Participation, failing: Mapping[int, str] = {}) -> tuple[list[Round], list[Any]]:
    """The rounds, and what training and aggregation were called with, in their order.

    `failing` are hospitals that fail, by round.
    """
    calls: list[Any] = []

    def train(orders: dict[str, Order], starts: dict[str, Ref]) -> Trained:
        calls.append((orders, starts))
        number = next(iter(orders.values())).round
        answering = [hospital for hospital in orders if failing.get(number) != hospital]
        missing: dict[str, Exception] = {hospital: MemoryError() for hospital in orders if hospital not in answering}
        return Trained({hospital: ref(f"{hospital}-{number}") for hospital in answering}, 1.0, missing=missing)

    def aggregate(**given: Any) -> Ref:
        calls.append(given)
        return ref(f"server-{given['round_number']}")

    strategy = choose(StrategySettings(strategy=name))  # type: ignore[arg-type]
    return list(rounds(strategy, participation, ref("start"), train, aggregate)), calls


@pytest.mark.parametrize("name", ["fedavg", "none"])
def test_the_server_aggregates_what_hospitals_trained_from_what_they_were_given(name: str) -> None:
    found, calls = run(name, taking_part(3))
    held, state = dict.fromkeys(NAMES, ref("start")), ref("start")
    for number, each in enumerate(found, start=1):
        orders, starts = calls[2 * number - 2]
        assert [order.round for order in orders.values()] == [number, number]
        assert starts == each.starts == held
        updates = {hospital: ref(f"{hospital}-{number}") for hospital in NAMES}
        assert calls[2 * number - 1] == {"state": state, "trained": each.trained, "round_number": number}
        assert each.trained.updates == updates
        state = each.state
        assert state == ref(f"server-{number}")
        held = updates if name == "none" else dict.fromkeys(NAMES, state)
        assert each.following == held
    assert [each.number for each in found] == [1, 2, 3]


def test_a_round_goes_on_with_those_that_answered() -> None:
    """Who failed gets the result all the same, and is asked again in the next round."""
    found, calls = run("fedavg", taking_part(2, [*NAMES, "west"]), {1: "west"})
    assert list(calls[1]["trained"].updates) == NAMES
    assert reasons(found[0].trained.missing) == {"west": "MemoryError"}
    assert found[0].following == dict.fromkeys([*NAMES, "west"], ref("server-1"))
    assert list(calls[3]["trained"].updates) == [*NAMES, "west"]


def test_alone_a_hospital_that_failed_goes_on_from_what_it_has_last_trained() -> None:
    found, _ = run("none", taking_part(3, [*NAMES, "west"]), {1: "west", 3: "south"})
    assert [each.following["west"] for each in found] == [ref("start"), ref("west-2"), ref("west-3")]
    assert found[2].following["south"] == ref("south-2")


def test_a_round_that_too_few_answer_ends_the_study() -> None:
    with pytest.raises(StudyError, match=r"1 of 2 hospitals failed, first south: MemoryError"):
        run("fedavg", taking_part(2), {2: "south"})
    run("fedavg", taking_part(2, min_hospitals=1), {2: "south"})
    with pytest.raises(StudyError, match=r"1 of 3 hospitals failed"):
        run("fedavg", taking_part(2, [*NAMES, "west"], min_hospitals=3), {2: "south"})


def test_who_joins_late_starts_from_the_round_before_and_who_leaves_keeps_what_it_has() -> None:
    found, calls = run("fedavg", taking_part(3, [*NAMES, "west"], joins={"west": 2}, leaves={"south": 1}))
    assert [list(each.orders) for each in found] == [["north", "south"], ["north", "west"], ["north", "west"]]
    assert calls[2][1] == {"north": ref("server-1"), "west": ref("server-1")}
    assert found[2].following == {"north": ref("server-3"), "south": ref("server-1"), "west": ref("server-3")}


def test_those_not_asked_get_the_result_too() -> None:
    found, _ = run("fedavg", taking_part(8, participants=1))
    assert {len(each.orders) for each in found} == {1} and {name for each in found for name in each.orders} == {*NAMES}
    assert all(each.following == dict.fromkeys(NAMES, each.state) for each in found)


def test_a_round_does_not_begin_before_it_is_requested() -> None:
    """A study stores and shows a round before the next one starts."""
    strategy, begun = choose(StrategySettings()), list[int]()

    def train(orders: dict[str, Order], starts: dict[str, Ref]) -> Trained:
        begun.append(orders["north"].round)
        return Trained(starts, 0.0)

    for each in rounds(strategy, taking_part(2), ref("start"), train, lambda **_: ref("server")):
        assert begun[-1] == each.number


def test_who_did_not_answer_or_is_left_out_is_told_in_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an error that is not ours, which may quote a case, nothing but its kind."""
    monkeypatch.chdir(tmp_path)
    with writing("shared", "adapter", "0") as folder:
        folder.write_json("round.json", {"quarantined": {"south": "not finite (w)"}})
    missing: dict[str, Exception] = {"north": StudyError("No space is left."), "west": ValueError("Mr Smith")}
    done = Round(2, {}, {}, Trained({}, 0.0, missing=missing), folder.ref, folder.ref, {})
    with caplog.at_level(logging.WARNING, logger="fed_rag"):
        tell_missing(done)
    assert caplog.messages == [
        "north did not answer in round 2: No space is left.",
        "west did not answer in round 2: ValueError",
        "south is left out of round 2: not finite (w)",
    ]
    row = ROW | {"quarantined": {"south": "not finite (w)"}, "missing": {"west": "ValueError"}}
    assert round_table([row])[0]["left out"] == "west (did not answer: ValueError), south (not finite (w))"
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
        orders = {hospital: strategy.order(1, hospital) for hospital in NAMES}
        held = dict.fromkeys(NAMES, folder.ref)
        done = Round(1, orders, held, Trained(held, 0.0), folder.ref, folder.ref, held)
        assert wire(strategy, done) == {"bytes_down": 2 * total, "bytes_up": 2 * total}


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ({"strategy": "bulyan"}, r"at least 7 hospitals for federation\.strategy=bulyan"),
        ({"compare_images": True}, "compare_images=false in a simulation, whose audit compares all images"),
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


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"lora": {"ranks": {"hospital-9": 4}}}, r"hospitals in lora\.ranks, found hospital-9"),
        ({"federation": {"strategy": "krum", "byzantine": 1, "participants": 4}}, "at least 5 hospitals"),
        ({"federation": {"secure_aggregation": True, "participants": 1}}, "at least 2 hospitals with federation"),
    ],
)
def test_what_a_round_cannot_bear_is_refused_before_it_begins(study: dict[str, Any], said: str) -> None:
    names = [f"hospital-{n}" for n in range(1, 7)]
    with pytest.raises(StudyError, match=said):
        who_takes_part(Study.model_validate(study | {"partition": {"hospitals": 6}}), names)
