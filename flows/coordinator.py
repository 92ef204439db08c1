"""The rounds of a study: hospitals train, the server aggregates their updates, hospitals validate."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import unmapped

from flows.dashboard import Dashboard
from flows.losses import round_losses, round_table, show_losses
from flows.mapped import gather_named, refuse_missing
from flows.parts import within_part
from flows.progress import Pace, Steps
from flows.runtimes.local import Local
from flows.runtimes.runtime import Runtime, Trained
from flows.runtimes.stacked import Stacked
from flows.suitable import taking_part
from tasks.errors import StudyError
from tasks.federate.lora_mean.factors import Factors
from tasks.federate.lora_mean.ranks import OfRanks
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.participation import Participation
from tasks.federate.privacy.step import sum_in_secret
from tasks.federate.remote.from_server import FromServer
from tasks.federate.remote.step import note_used
from tasks.federate.step import aggregate, join_adapter, keep_control
from tasks.federate.strategies.strategy import Strategy
from tasks.records.federation import ADAPTER_FILE, CONTROL_FILE, RESIDUAL, TOGETHER, HospitalRefs, Order, group_file
from tasks.settings import ModelChoice, Study
from tasks.store import Ref

logger = logging.getLogger("fed_rag")
RUNTIMES: dict[str, Runtime] = {"mapped": Local(), "batched": Stacked()}
"""By `engine.executor`."""


@dataclass(frozen=True)
class Round:
    """One round of a federation; mappings are by hospital."""

    number: int
    orders: dict[str, Order]
    """Of those that were asked to train."""
    starts: dict[str, Ref]
    """What each of these started from."""
    trained: Trained
    before: Ref
    """The server's state before this round."""
    state: Ref
    """The server's state after this round."""
    following: dict[str, Ref]
    """The tensors that each hospital of the study has after this round."""


def rounds(
    strategy: Strategy,
    participation: Participation,
    start: Ref,
    train: Callable[[dict[str, Order], dict[str, Ref]], Trained],
    put_together: Callable[..., Ref],
) -> Iterator[Round]:
    """Run the rounds of a federation, for any kind of tensors, and yield each.

    Raises StudyError if too few hospitals answer in a round.

    Args:
        strategy: gives the orders.
        participation: says how many rounds there are, and who takes part in them.
        start: the initial tensors of all hospitals.
        train: trains each hospital by its order, from its start.
        put_together: makes the server's next state from `state`, what was `trained`, and `round_number`.
    """
    before = start
    held = dict.fromkeys(participation.hospitals, start)
    own = dict(held)  # what each has last trained
    for number in range(1, participation.rounds + 1):
        orders = {hospital: strategy.order(number, hospital) for hospital in participation.asked(number)}
        starts = {hospital: held[hospital] for hospital in orders}
        trained = train(orders, starts)
        if len(trained.updates) < participation.least(number):
            refuse_missing(trained.missing, len(orders))
        own |= trained.kept or trained.updates
        state = put_together(state=before, trained=trained, round_number=number)
        coming = {hospital: strategy.order(number + 1, hospital) for hospital in participation.receivers(number)}
        held = held | go_on(coming, state, own)
        yield Round(number, orders, starts, trained, before, state, held)
        before = state


def go_on(coming: Mapping[str, Order], state: Ref, own: Mapping[str, Ref]) -> dict[str, Ref]:
    """The tensors that each hospital continues from, by its order for the next round.

    Args:
        coming: by hospital, its next order.
        state: the server's state.
        own: by hospital, what it has last trained, or the initial tensors.
    """
    joining = [hospital for hospital, order in coming.items() if order.start == "joined"]
    joined: dict[str, Ref] = {}
    if joining:
        kept, number = [own[hospital] for hospital in joining], coming[joining[0]].round - 1
        common = {"state": unmapped(state), "round_number": unmapped(number)}
        joined = gather_named(join_adapter, joining, hospital=joining, trained=kept, **common)
    places = {"global": dict.fromkeys(coming, state), "own": own, "joined": joined}
    return {hospital: places[order.start][hospital] for hospital, order in coming.items()}


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
    members: list[list[str]]
    """The hospitals that were members in each round."""
    state: Ref
    """The server's state after the last round."""


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
    """Run the rounds of the adapter: those asked train, the server aggregates, every member validates.

    `reached` is how hospitals are reached; by default they are in this process. Raises StudyError if too few hospitals
    answer in a round.
    """
    strategy: Factors = OfRanks(choose_rule(study.federation.server), study.lora.ranks)
    elsewhere = study.federation.runtime == "flower"
    if elsewhere:
        strategy = FromServer(strategy)
    runtime = reached or RUNTIMES[study.engine.executor]
    settings = training_settings(study, model)
    here = {hospital.name: hospital for hospital in hospitals}
    participation = taking_part(study, list(here))

    def train(orders: dict[str, Order], starts: dict[str, Ref]) -> Trained:
        return runtime.train(holding(here, starts), list(orders.values()), settings)

    coming = rounds(strategy, participation, hospitals[0].adapter, train, aggregation(study, model, participation))

    def one_round() -> tuple[Round, list[Ref]]:
        this = next(coming)
        tell_missing(this)
        here.update(keep_controls(here, this, note_used if elsewhere else keep_control))
        present = [each for each in participation.members(this.number) if each not in this.trained.missing]
        validating = holding(here, {hospital: this.following[hospital] for hospital in present})
        told = {"round_number": this.number, "min_cell": study.evaluation.min_cell}
        return this, runtime.validate(validating, settings | told)

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
    trained = [each.model_copy(update={"budget": None}) for each in holding(here, this.following)]
    members = [participation.members(row["round"]) for row in rows]
    return Federated(trained, rows, validated, starts, members, this.state)


def aggregation(study: Study, model: ModelChoice, participation: Participation) -> Callable[..., Ref]:
    """How a study's server puts the updates of a round together; where it may see no single one, their sum."""

    def put_together(*, state: Ref, trained: Trained, round_number: int) -> Ref:
        updates = trained.updates
        share = len(updates) / len(participation.members(round_number))
        if study.federation.secure_aggregation:
            updates = {TOGETHER: trained.summed() if trained.summed else summed_here(updates, round_number)}
        return aggregate(
            strategy=study.federation.server,
            state=state,
            hospitals=list(updates),
            updates=list(updates.values()),
            round_number=round_number,
            base=model.content,
            share=share,
            steps=study.federation.asked_steps,
            ranks=study.lora.ranks,
        )

    return put_together


def summed_here(updates: Mapping[str, Ref], round_number: int) -> Ref:
    """The mean of updates that are in this process, by a secure sum."""
    return sum_in_secret(updates=list(updates.values()), round_number=round_number)


def keep_controls(
    hospitals: Mapping[str, HospitalRefs], of: Round, keep: Any = keep_control
) -> dict[str, HospitalRefs]:
    """The hospitals whose control variate is another after a round; none if the strategy has no control variates.

    One whose update was left out keeps its former one, as if it had not taken part. `keep` is the stage that makes it.
    """
    if not any(order.local.control for order in of.orders.values()):
        return {}
    left_out = round_summary(of)["quarantined"]
    used = {name: update for name, update in of.trained.updates.items() if name not in left_out}
    before = [hospitals[name].control for name in used]
    kept = gather_named(keep, list(used), hospital=list(used), before=before, update=list(used.values()))
    return {name: hospitals[name].model_copy(update={"control": control}) for name, control in kept.items()}


def round_row(strategy: Strategy, of: Round, held_out: Sequence[Ref]) -> dict[str, Any]:
    """The results' row for a round: its `round.json`, who was asked, the held-out loss, seconds and bytes sent."""
    part = {"asked": list(of.orders), "missing": reasons(of.trained.missing)}
    took = {"eval_loss": held_out_loss(held_out), "seconds": of.trained.seconds}
    return round_summary(of) | part | took | wire(strategy, of)


def round_summary(of: Round) -> dict[str, Any]:
    """What the server wrote down of a round (`round.json`)."""
    return dict(json.loads((of.state.folder / "round.json").read_text(encoding="utf-8")))


def reasons(missing: Mapping[str, Exception]) -> dict[str, str]:
    """By hospital, why it did not answer; of an error that is not ours its kind alone, since it may quote cases."""
    return {
        hospital: str(error) if isinstance(error, StudyError) else type(error).__name__
        for hospital, error in missing.items()
    }


def tell_missing(of: Round) -> None:
    """Log who did not answer in a round, and whose update it has left out, with reasons; in each run, cached or not."""
    for hospital, reason in reasons(of.trained.missing).items():
        logger.warning("%s did not answer in round %d: %s", hospital, of.number, reason)
    for hospital, reason in round_summary(of)["quarantined"].items():
        logger.warning("%s is left out of round %d: %s", hospital, of.number, reason)


def given(hospitals: Sequence[HospitalRefs], adapters: Sequence[Ref]) -> list[HospitalRefs]:
    """The hospitals, each with another adapter."""
    return [hospital.given(adapter) for hospital, adapter in zip(hospitals, adapters, strict=True)]


def holding(hospitals: Mapping[str, HospitalRefs], adapters: Mapping[str, Ref]) -> list[HospitalRefs]:
    """The hospitals that adapters are given for by name, with these."""
    return [hospitals[name].given(adapter) for name, adapter in adapters.items()]


def wire(strategy: Strategy, of: Round) -> dict[str, int]:
    """File sizes in bytes of what a round sends to the hospitals, and of what they send back.

    Both are 0 with a single hospital. Nothing is sent down to hospitals that continue from their own tensors, and
    nothing up if the strategy needs no tensors.
    """
    several = len(of.following) > 1
    control = any(order.local.control for order in of.orders.values())
    down = [of.before for order in of.orders.values() if several and order.start != "own"]
    up = of.trained.updates.values() if several and strategy.needs else []
    if of.trained.summed:  # a masked number has eight bytes, and one of an adapter four
        up = [of.trained.summed()] * 2 * len(of.trained.updates)
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
