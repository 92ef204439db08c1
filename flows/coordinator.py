"""The rounds of a study: hospitals train, the server aggregates their updates, hospitals validate."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.dashboard import Dashboard
from flows.losses import round_losses, round_table, show_losses
from flows.parts import within_part
from flows.progress import Pace, Steps
from flows.runtimes.local import Local, all_alike, gather
from flows.runtimes.runtime import Runtime, Trained
from flows.runtimes.stacked import Stacked
from tasks.errors import StudyError
from tasks.federate.step import aggregate, sum_in_secret, validate_hospital
from tasks.federate.strategies.strategy import Strategy, choose
from tasks.records.federation import ADAPTER_FILE, HospitalRefs, Order
from tasks.settings import ModelChoice, Study
from tasks.store import Ref

RUNTIMES: dict[str, Runtime] = {"mapped": Local(), "batched": Stacked()}
"""By `engine.executor`."""


@dataclass(frozen=True)
class Round:
    """One round of a federation: each hospital's order, start, update, and start of the next round."""

    number: int
    orders: list[Order]
    starts: list[Ref]
    trained: Trained
    state: Ref
    """The server's state after this round."""
    following: list[Ref]
    """The tensors that each hospital continues from after this round."""


def rounds(
    strategy: Strategy,
    count: int,
    hospitals: Sequence[str],
    start: Ref,
    train: Callable[[list[Order], list[Ref]], Trained],
    put_together: Callable[..., Ref],
) -> Iterator[Round]:
    """Run the rounds of a federation, for any kind of tensors, and yield each.

    Args:
        strategy: gives the orders.
        count: number of rounds.
        hospitals: their names.
        start: the initial tensors of all hospitals.
        train: trains each hospital by its order, from its start.
        put_together: makes the server's next state from `state`, `updates` and `round_number`.
    """
    state, starts = start, [start] * len(hospitals)
    orders = [strategy.order(1, hospital) for hospital in hospitals]
    for number in range(1, count + 1):
        trained = train(orders, starts)
        state = put_together(state=state, updates=trained.updates, round_number=number)
        coming = [strategy.order(number + 1, hospital) for hospital in hospitals]
        following = [
            state if order.start == "global" else update for order, update in zip(coming, trained.updates, strict=True)
        ]
        yield Round(number, orders, starts, trained, state, following)
        orders, starts = coming, following


def federate(
    study: Study, model: ModelChoice, hospitals: list[HospitalRefs], steps: Steps
) -> tuple[list[HospitalRefs], list[dict[str, Any]], list[Ref]]:
    """Run the rounds of the adapter: every hospital trains, the server aggregates, every hospital validates.

    Returns the hospitals with their final adapters (all the same, unless they train alone), one row per round, and the
    folders in which hospitals shared their held-out losses, of all rounds.
    """
    strategy, runtime = choose(study.federation.strategy), RUNTIMES[study.engine.executor]
    if study.federation.secure_aggregation:
        refuse_single_updates(strategy, study.federation.aggregation)
    settings: dict[str, Any] = {
        "model": model,
        "lora": study.lora,
        "federation": study.federation.local,
        "context": study.retrieval.context,
        "seed": study.seed,
    }

    def train(orders: list[Order], starts: list[Ref]) -> Trained:
        return runtime.train(given(hospitals, starts), orders, settings)

    def put_together(*, updates: list[Ref], round_number: int, **taken: Any) -> Ref:
        if study.federation.secure_aggregation:
            updates = [sum_in_secret(updates=updates, round_number=round_number)]
        return aggregate(strategy=study.federation.strategy, updates=updates, round_number=round_number, **taken)

    names = [hospital.name for hospital in hospitals]
    coming = rounds(strategy, study.federation.rounds, names, hospitals[0].adapter, train, put_together)

    def one_round() -> tuple[Round, list[Ref]]:
        this = next(coming)
        return this, validate(given(hospitals, this.following), this.number, settings, study.evaluation.min_cell)

    rows: list[dict[str, Any]] = []
    validated: list[Ref] = []
    dashboard = Dashboard()
    pace = Pace(study.federation.rounds)
    for number in range(1, study.federation.rounds + 1):
        began = time.perf_counter()
        this, held_out = within_part("round", one_round, f"round {number}")
        left = pace.done(time.perf_counter() - began)
        rows.append(round_row(strategy, this, held_out))
        validated += held_out
        dashboard.table("rounds", round_table(rows), "Losses of each round, and what it took")
        show_losses(dashboard, "losses", round_losses(rows))
        loss = rows[-1]["eval_loss"]
        held = "" if loss is None else f", held-out loss {loss:.4f}"
        steps.done(f"round {number}: training loss {rows[-1]['train_loss']:.4f}{held}{left}")
    return given(hospitals, this.following), rows, validated


def refuse_single_updates(strategy: Strategy, name: str) -> None:
    """Raise StudyError for a strategy to which the sum of the hospitals' tensors is not enough, or which sends none."""
    if "sum" not in strategy.needs or not strategy.needs <= {"sum", "state"}:
        needs = ", ".join(sorted(strategy.needs)) or "nothing"
        raise StudyError(
            f"Expected a strategy that needs only the sum of updates with federation.secure_aggregation, found {name}, "
            f"which needs {needs}: choose another strategy, or set federation.secure_aggregation=false."
        )


def validate(hospitals: Sequence[HospitalRefs], number: int, settings: dict[str, Any], min_cell: int) -> list[Ref]:
    """Compute every hospital's loss on its held-out cases, with the adapter that it continues from."""
    common = settings | {"round_number": number, "min_cell": min_cell}
    validating = validate_hospital.map(hospital=list(hospitals), **all_alike(common))
    return gather(validating, [hospital.name for hospital in hospitals])


def round_row(strategy: Strategy, of: Round, held_out: Sequence[Ref]) -> dict[str, Any]:
    """The results' row for a round: its `round.json`, the held-out loss, seconds of training and bytes sent."""
    row = json.loads((of.state.folder / "round.json").read_text(encoding="utf-8"))
    return row | {"eval_loss": held_out_loss(held_out), "seconds": of.trained.seconds} | wire(strategy, of)


def given(hospitals: Sequence[HospitalRefs], adapters: Sequence[Ref]) -> list[HospitalRefs]:
    """The hospitals, each with another adapter."""
    return [hospital.given(adapter) for hospital, adapter in zip(hospitals, adapters, strict=True)]


def wire(strategy: Strategy, of: Round) -> dict[str, int]:
    """File sizes in bytes of what a round sends to the hospitals, and of what they send back.

    Both are 0 with a single hospital. Nothing is sent down to hospitals that continue from their own tensors, and
    nothing up if the strategy needs no tensors.
    """
    several = len(of.orders) > 1
    down = [start for order, start in zip(of.orders, of.starts, strict=True) if several and order.start == "global"]
    up = of.trained.updates if several and strategy.needs else []
    return {"bytes_down": sum(map(size, down)), "bytes_up": sum(map(size, up))}


def size(ref: Ref) -> int:
    """Bytes of an adapter's folder, without its manifest and the tensors that stay on the server."""
    files = ref.manifest()["files"].items()
    return sum(each["bytes"] for name, each in files if name == ADAPTER_FILE or not name.endswith(".safetensors"))


def held_out_loss(held_out: Sequence[Ref]) -> float | None:
    """The hospitals' mean held-out loss, weighted by answer tokens; None if no hospital has held-out cases."""
    losses = [json.loads((ref.folder / "validation.json").read_text(encoding="utf-8")) for ref in held_out]
    tokens = sum(each["tokens"] for each in losses)
    return sum(each["loss"] * each["tokens"] for each in losses) / tokens if tokens else None
