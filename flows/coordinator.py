"""The rounds of a study: hospitals train, the server aggregates their updates, hospitals validate."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import unmapped

from flows.dashboard import Dashboard
from flows.losses import round_losses, round_table, show_losses
from flows.parts import within_part
from flows.progress import Pace, Steps
from flows.runtimes.local import Local, gather
from flows.runtimes.runtime import Runtime, Trained
from flows.runtimes.stacked import Stacked
from tasks.errors import StudyError
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.privacy.step import sum_in_secret
from tasks.federate.step import aggregate, join_adapter, keep_control
from tasks.federate.strategies.strategy import Strategy
from tasks.records.federation import ADAPTER_FILE, CONTROL_FILE, RESIDUAL, TOGETHER, HospitalRefs, Order, group_file
from tasks.settings import FederationSettings, ModelChoice, Study
from tasks.store import Ref

logger = logging.getLogger("fed_rag")
RUNTIMES: dict[str, Runtime] = {"mapped": Local(), "batched": Stacked()}
"""By `engine.executor`."""


@dataclass(frozen=True)
class Round:
    """One round of a federation: each hospital's order, start, update, and start of the next round."""

    number: int
    orders: list[Order]
    starts: list[Ref]
    trained: Trained
    before: Ref
    """The server's state before this round."""
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
    before, starts = start, [start] * len(hospitals)
    orders = [strategy.order(1, hospital) for hospital in hospitals]
    for number in range(1, count + 1):
        trained = train(orders, starts)
        state = put_together(state=before, updates=trained.updates, round_number=number)
        coming = [strategy.order(number + 1, hospital) for hospital in hospitals]
        following = go_on(hospitals, coming, state, trained)
        yield Round(number, orders, starts, trained, before, state, following)
        before, orders, starts = state, coming, following


def check_strategy(study: Study) -> None:
    """Raises StudyError, before anything is done, if the strategy does not work with the study's hospitals or sums."""
    strategy = choose_rule(study.federation.server)
    strategy.check_hospitals(study.partition.hospitals)
    if study.federation.secure_aggregation:
        refuse_single_updates(strategy, study.federation)


def go_on(hospitals: Sequence[str], coming: Sequence[Order], state: Ref, trained: Trained) -> list[Ref]:
    """The tensors that each hospital continues from, by its order for the next round."""
    if trained.kept:
        number = unmapped(coming[0].round - 1)
        joining = join_adapter.map(hospital=hospitals, state=unmapped(state), trained=trained.kept, round_number=number)
        return gather(joining, hospitals)
    return [state if order.start == "global" else own for order, own in zip(coming, trained.updates, strict=True)]


@dataclass(frozen=True)
class Federated:
    """What the rounds of a study leave."""

    trained: list[HospitalRefs]
    """The hospitals with their final adapters: all the same, unless they train alone or keep a part."""
    rows: list[dict[str, Any]]
    """The results' row of each round."""
    validated: list[Ref]
    """The folders in which hospitals shared their held-out losses, of all rounds."""
    starts: list[Ref]
    """The server's state before each round."""


def training_settings(study: Study, model: ModelChoice) -> dict[str, Any]:
    """What `train_hospital` takes that is the same for all hospitals and rounds."""
    return {
        "model": model,
        "lora": study.lora,
        "federation": study.federation.local,
        "context": study.retrieval.context,
        "seed": study.seed,
    }


def federate(
    study: Study, model: ModelChoice, hospitals: list[HospitalRefs], steps: Steps, reached: Runtime | None = None
) -> Federated:
    """Run the rounds of the adapter: every hospital trains, the server aggregates, every hospital validates.

    `reached` is how hospitals are reached; by default they are in this process.
    """
    strategy, runtime = choose_rule(study.federation.server), reached or RUNTIMES[study.engine.executor]
    settings = training_settings(study, model)
    training = list(hospitals)

    def train(orders: list[Order], starts: list[Ref]) -> Trained:
        return runtime.train(given(training, starts), orders, settings)

    def put_together(*, updates: list[Ref], round_number: int, **taken: Any) -> Ref:
        senders = names
        if study.federation.secure_aggregation:
            senders, updates = [TOGETHER], [sum_in_secret(updates=updates, round_number=round_number)]
        told = {"hospitals": senders, "updates": updates, "round_number": round_number, "base": model.content}
        return aggregate(strategy=study.federation.server, **told, **taken)

    names = [hospital.name for hospital in hospitals]
    coming = rounds(strategy, study.federation.rounds, names, hospitals[0].adapter, train, put_together)

    def one_round() -> tuple[Round, list[Ref]]:
        this = next(coming)
        tell_quarantined(this)
        training[:] = keep_controls(training, this)
        validating = settings | {"round_number": this.number, "min_cell": study.evaluation.min_cell}
        return this, runtime.validate(given(hospitals, this.following), validating)

    rows: list[dict[str, Any]] = []
    validated: list[Ref] = []
    starts: list[Ref] = []
    dashboard = Dashboard()
    pace = Pace(study.federation.rounds)
    for number in range(1, study.federation.rounds + 1):
        began = time.perf_counter()
        this, held_out = within_part("round", one_round, f"round {number}", runtime.at_once)
        left = pace.done(time.perf_counter() - began)
        rows.append(round_row(strategy, this, held_out))
        validated += held_out
        starts.append(this.before)
        dashboard.table("rounds", round_table(rows), "Losses of each round, and what it took")
        show_losses(dashboard, "losses", round_losses(rows))
        loss = rows[-1]["eval_loss"]
        held = "" if loss is None else f", held-out loss {loss:.4f}"
        steps.done(f"round {number}: training loss {rows[-1]['train_loss']:.4f}{held}{left}")
    return Federated(given(hospitals, this.following), rows, validated, starts)


def keep_controls(hospitals: Sequence[HospitalRefs], of: Round) -> list[HospitalRefs]:
    """The hospitals, each with its control variate after a round, if the strategy has any.

    One whose update was left out keeps its former one, as if it had not taken part.
    """
    if not of.orders[0].local.control:
        return list(hospitals)
    left_out = round_summary(of)["quarantined"]
    pairs = zip(hospitals, of.trained.updates, strict=True)
    used = {hospital.name: (hospital, update) for hospital, update in pairs if hospital.name not in left_out}
    keeping = keep_control.map(
        hospital=list(used),
        before=[hospital.control for hospital, _ in used.values()],
        update=[update for _, update in used.values()],
    )
    kept = dict(zip(used, gather(keeping, list(used)), strict=True))
    return [each.model_copy(update={"control": kept.get(each.name, each.control)}) for each in hospitals]


def refuse_single_updates(strategy: Strategy, federation: FederationSettings) -> None:
    """Raise StudyError for a strategy to which the sum of the hospitals' tensors is not enough, or which sends none."""
    if "sum" not in strategy.needs or not strategy.needs <= {"sum", "state"}:
        needs, rule = ", ".join(sorted(strategy.needs)) or "nothing", federation.lora_mean
        name = federation.strategy if rule == "factors" else f"{federation.strategy} with lora_mean {rule}"
        raise StudyError(
            f"Expected a strategy that needs only the sum of updates with federation.secure_aggregation, found {name}, "
            f"which needs {needs}: choose another, or set federation.secure_aggregation=false."
        )


def round_row(strategy: Strategy, of: Round, held_out: Sequence[Ref]) -> dict[str, Any]:
    """The results' row for a round: its `round.json`, the held-out loss, seconds of training and bytes sent."""
    return (
        round_summary(of) | {"eval_loss": held_out_loss(held_out), "seconds": of.trained.seconds} | wire(strategy, of)
    )


def round_summary(of: Round) -> dict[str, Any]:
    """What the server wrote down of a round (`round.json`)."""
    return dict(json.loads((of.state.folder / "round.json").read_text(encoding="utf-8")))


def tell_quarantined(of: Round) -> None:
    """Log which hospitals' updates a round has left out, and why; in each run, also where the round was done before."""
    for hospital, reason in round_summary(of)["quarantined"].items():
        logger.warning("%s is left out of round %d: %s", hospital, of.number, reason)


def given(hospitals: Sequence[HospitalRefs], adapters: Sequence[Ref]) -> list[HospitalRefs]:
    """The hospitals, each with another adapter."""
    return [hospital.given(adapter) for hospital, adapter in zip(hospitals, adapters, strict=True)]


def wire(strategy: Strategy, of: Round) -> dict[str, int]:
    """File sizes in bytes of what a round sends to the hospitals, and of what they send back.

    Both are 0 with a single hospital. Nothing is sent down to hospitals that continue from their own tensors, and
    nothing up if the strategy needs no tensors.
    """
    several = len(of.orders) > 1
    control = of.orders[0].local.control
    down = [of.before for order in of.orders if several and order.start != "own"]
    up = of.trained.updates if several and strategy.needs else []
    return {"bytes_down": sum(size(ref, control) for ref in down), "bytes_up": sum(size(ref, control) for ref in up)}


def size(ref: Ref, control: bool) -> int:
    """Bytes of an adapter's folder, without its manifest and the tensors that stay on the server.

    With `control`, control variates travel too.
    """
    sent = {ADAPTER_FILE, group_file(RESIDUAL), *([CONTROL_FILE] if control else [])}
    files = ref.manifest()["files"].items()
    return sum(each["bytes"] for name, each in files if name in sent or not name.endswith(".safetensors"))


def held_out_loss(held_out: Sequence[Ref]) -> float | None:
    """The hospitals' mean held-out loss, weighted by answer tokens; None if no hospital has held-out cases."""
    losses = [json.loads((ref.folder / "validation.json").read_text(encoding="utf-8")) for ref in held_out]
    tokens = sum(each["tokens"] for each in losses)
    return sum(each["loss"] * each["tokens"] for each in losses) / tokens if tokens else None
