"""The rounds of a study: hospitals train, their updates are put together, hospitals validate."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import unmapped

from flows.dashboard import Shown
from flows.losses import round_losses, round_table, show_losses
from flows.progress import Steps
from flows.runtimes.local import gather
from tasks.errors import StudyError
from tasks.federate.step import average, take_update, train_hospital, train_together, validate_hospital
from tasks.records.federation import HospitalRefs
from tasks.settings import ModelChoice, Study
from tasks.store import Ref


def federate(
    study: Study, model: ModelChoice, hospitals: list[HospitalRefs], steps: Steps
) -> tuple[list[HospitalRefs], list[dict[str, Any]], list[Ref]]:
    """The rounds: every hospital trains from the adapter it was given, updates are averaged, every hospital validates.

    Returns the hospitals with their last adapter (one and the same, unless they train alone), a row for each round, and
    what each hospital shared of its losses on held-out cases in each.
    """
    settings: dict[str, Any] = {"model": unmapped(model), "lora": unmapped(study.lora), "seed": unmapped(study.seed)}
    settings["federation"] = unmapped(study.federation.local)
    rows: list[dict[str, Any]] = []
    validated: list[Ref] = []
    shown = Shown()
    for number in range(1, study.federation.rounds + 1):
        common = settings | {"shown": unmapped(study.retrieval.shown), "round_number": unmapped(number)}
        updates, together = train_round(study, hospitals, common, number)
        row = {"seconds": round(sum(ref.manifest()["seconds"] for ref in together or updates), 3)}
        row |= wire(study, hospitals, updates)
        if study.federation.aggregation == "none":
            given = updates
            told = alone_row(updates, number)
        else:
            given = [average(updates=updates, round_number=number)] * len(updates)
            told = json.loads((given[0].folder / "round.json").read_text(encoding="utf-8"))
        least = unmapped(study.evaluation.min_cell)
        hospitals = [hospital.given(adapter) for hospital, adapter in zip(hospitals, given, strict=True)]
        validating = validate_hospital.map(hospital=hospitals, **common, min_cell=least)
        held_out = gather(validating, [hospital.name for hospital in hospitals])
        rows.append(told | {"eval_loss": held_out_loss(held_out)} | row)
        validated += held_out
        shown.table("rounds", round_table(rows), "Losses of each round, and what it took")
        show_losses(shown, "losses", round_losses(rows))
        loss = rows[-1]["eval_loss"]
        held = "" if loss is None else f", held-out loss {loss:.4f}"
        steps.done(f"round {number}: training loss {rows[-1]['train_loss']:.4f}{held}")
    return hospitals, rows, validated


def train_round(
    study: Study, hospitals: list[HospitalRefs], common: Mapping[str, Any], number: int
) -> tuple[list[Ref], list[Ref]]:
    """Every hospital's update, and the folder where they were trained if that was in one pass over the base.

    Hospitals that train alone start from adapters of their own, so these train one after the other in any case.
    """
    names = [hospital.name for hospital in hospitals]
    if study.engine.executor == "mapped" or study.federation.aggregation == "none":
        return gather(train_hospital.map(hospital=hospitals, **common), names), []
    together = train_together(hospitals=hospitals, **{name: each.value for name, each in common.items()})
    updates = take_update.map(hospital=names, together=unmapped(together), round_number=unmapped(number))
    return gather(updates, names), [together]


def wire(study: Study, hospitals: Sequence[HospitalRefs], updates: Sequence[Ref]) -> dict[str, int]:
    """Bytes that a round sends: what each hospital is given, and what each sends back, as the files are.

    Nothing travels where one hospital trains, or each alone.
    """
    travels = len(updates) > 1 and study.federation.aggregation != "none"
    return {
        name: sum(size(ref) for ref in refs) if travels else 0
        for name, refs in (("bytes_down", [each.adapter for each in hospitals]), ("bytes_up", updates))
    }


def size(ref: Ref) -> int:
    """Bytes of a folder's files, without its manifest."""
    return sum(entry["bytes"] for entry in ref.manifest()["files"].values())


def alone_row(updates: Sequence[Ref], number: int) -> dict[str, Any]:
    """What `round.json` says of an averaged round, for hospitals that train alone."""
    told = [json.loads((ref.folder / "update.json").read_text(encoding="utf-8")) for ref in updates]
    if diverged := [each["hospital"] for each in told if each["loss"] is None]:
        raise StudyError(
            f"Expected a finite training loss of round {number} at every hospital, found none at {diverged[0]}: "
            "lower federation.learning_rate."
        )
    samples = {each["hospital"]: each["samples"] for each in told}
    loss = sum(each["samples"] * each["loss"] for each in told)
    return {
        "round": number,
        "train_loss": loss / sum(samples.values()),
        "samples": samples,
        "screened_out": [],
    }


def held_out_loss(held_out: Sequence[Ref]) -> float | None:
    """The hospitals' losses on their held-out cases, weighted by answer tokens; None where none holds any out."""
    losses = [json.loads((ref.folder / "validation.json").read_text(encoding="utf-8")) for ref in held_out]
    tokens = sum(each["tokens"] for each in losses)
    return sum(each["loss"] * each["tokens"] for each in losses) / tokens if tokens else None
