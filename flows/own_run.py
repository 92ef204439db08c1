"""A hospital's own run at the end of a federation: its answers, scores and pages, and what of them is told."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.evaluate import Adapters, Evaluated, evaluate
from flows.personal import Personalised
from flows.prepare import Prepared
from flows.progress import Steps
from flows.report import write_card, write_pages
from flows.run_folder import SharedRefs, write_run
from tasks.federate.remote.files import BY_GROUP, SCORES
from tasks.settings import ModelChoice, Study
from tasks.store import Ref
from tasks.store.runs import point_latest

EVALUATING_STEPS = 3


def evaluate_own(
    study: Study,
    model: ModelChoice,
    own: Personalised,
    prepared: Prepared,
    rounds: Sequence[Mapping[str, Any]],
    privacy: Sequence[Ref],
    elsewhere: Sequence[str],
) -> tuple[Evaluated, Path]:
    """Answer a hospital's test cases with its adapters, and write a run with its pages; returns both.

    So `fed-rag ask` and the other commands on a run work at the hospital. `rounds` is what the coordinator told,
    `privacy` what the hospital has spent, and `elsewhere` has the ids of its test images that others train on.
    """
    untrained = [each.given(prepared.hospitals[0].adapter) for each in own.hospitals]
    adapters = Adapters(own.hospitals, untrained, own.personal)
    found = evaluate(study, model, adapters, Steps("evaluate", EVALUATING_STEPS), elsewhere)
    shared = SharedRefs(
        copies=prepared.copies,
        losses=[],
        scores=found.scores,
        control=prepared.control,
        reliance=found.reliance,
        failures=found.failures,
        shares=found.shares,
        abstention=found.abstention,
        seen=prepared.seen,
        privacy=privacy,
        gains=found.gains,
    )
    run = write_run(study, model.content, own.hospitals, found.kept, rounds, shared)
    write_pages(run)
    write_card(run)
    point_latest(run)
    return found, run


def told_scores(found: Evaluated, seen: Sequence[Ref], by_group: bool) -> dict[str, bytes]:
    """The files that tell a hospital's scores; without `by_group`, no name or figure of a group is in them."""
    (scores,) = found.scores
    if not by_group:
        document = json.loads((scores.folder / "scores.json").read_text(encoding="utf-8"))
        document["withheld"] |= {"groups": {}, "by_kind": {}}
        return {SCORES: json.dumps(document, allow_nan=False).encode()}
    shared = {
        "scores": [scores],
        "reliance": found.reliance,
        "failures": found.failures,
        "shares": found.shares,
        "abstention": found.abstention,
        "seen": seen,
        "gain": found.gains,
    }
    return {
        f"{name}/{path.name}": path.read_bytes()
        for name, refs in shared.items()
        for ref in refs
        for path in sorted(ref.folder.iterdir())
        if f"{name}/{path.name}" in BY_GROUP | {SCORES}
    }
