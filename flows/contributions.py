"""What each hospital of a finished run brought to its last round: aggregated and evaluated anew, nothing trained."""

import json
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from flows.coordinator import training_settings
from flows.dashboard import Dashboard
from flows.files import write_text
from flows.gone import HOOKS
from flows.mapped import all_alike, gather
from flows.report import write_pages
from flows.serve.place import choose_base
from tasks.errors import StudyError
from tasks.federate.contributions.step import FILE, add_contributions, measure_coalitions
from tasks.federate.lora_mean.rule import choose_rule
from tasks.records.contributions import ContributionsDocument
from tasks.records.federation import HospitalRefs, read_counts
from tasks.report.contributions import contribution_rows
from tasks.settings import ModelChoice, Study
from tasks.store import Ref, find
from tasks.store.provenance import inputs_of
from tasks.store.runs import References, check_run, open_run


@flow(
    name="contributions",
    flow_run_name="contributions {run.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    **HOOKS,
)
def contributions(run: Path, orders: int = 64) -> ContributionsDocument:
    """Measure what each hospital brought to the last round of a finished run, and write it into the run and its page.

    `orders` are drawn for Shapley values where there are more than 8 hospitals.
    Raises StudyError for a run whose single updates are not known, or cannot be aggregated in part.
    """
    study, references = open_run(run)
    adapter = adapter_for_all(study, references)
    check_run(run, [adapter])
    model = choose_base(run, study)
    state, *updates = [find(path) for path in inputs_of(adapter)]
    check_run(run, [ref.path for ref in (state, *updates)])
    hospitals = [
        HospitalRefs.at(name, places).model_copy(update={"tuning": None})
        for name, places in references["hospitals"].items()
    ]
    measured = measure_all(study, model, hospitals, state, updates, orders)
    document = json.loads((measured.folder / FILE).read_text(encoding="utf-8"))
    head, *rows = contribution_rows(document)
    Dashboard().table(
        "contributions", [dict(zip(head, row, strict=True)) for row in rows], "What each hospital brought"
    )
    write_text(run / FILE, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    write_pages(run)
    return document


def adapter_for_all(study: Study, references: References) -> str:
    """The path of a run's final adapter.

    Raises StudyError if parts of its last round cannot be aggregated, or may not be.
    """
    federation = study.federation
    if federation.secure_aggregation:
        raise StudyError(
            "Expected a run whose single updates the server knows, found one with federation.secure_aggregation: it "
            "hides them, and what each hospital brought with them. Run without it to measure contributions."
        )
    if references["adapter"] is None:
        raise StudyError(
            "Expected a run with one adapter for all hospitals, found one in which each keeps its own "
            f"(federation.strategy={federation.strategy}, federation.lora_mean={federation.lora_mean}): there is no "
            "whole to have a part in."
        )
    if federation.privacy.unit == "hospital":
        raise StudyError(
            "Expected a run that may tell of single hospitals, found one with federation.privacy.unit=hospital: its "
            "noise hides them, and each further aggregate would spend more of the budget."
        )
    rule = choose_rule(federation.server)
    try:
        rule.check_hospitals(1)
    except StudyError:
        raise StudyError(
            "Expected a strategy that aggregates any number of hospitals, found federation.strategy="
            f"{federation.strategy}, which needs several: what one brings to it is not defined."
        ) from None
    return references["adapter"]


def measure_all(
    study: Study,
    model: ModelChoice,
    hospitals: Sequence[HospitalRefs],
    state: Ref,
    updates: Sequence[Ref],
    orders: int,
) -> Ref:
    """Let each hospital measure all coalitions of a round on its held-out cases, and add up.

    `state` is the server's before the round.
    """
    counts = [read_counts(ref.folder) for ref in updates]
    measured = gather(
        measure_coalitions,
        [hospital.name for hospital in hospitals],
        hospital=list(hospitals),
        **all_alike(training_settings(study, model)),
        strategy=unmapped(study.federation.server),
        steps=unmapped(study.federation.asked_steps),
        state=unmapped(state),
        senders=unmapped([each.hospital for each in counts]),
        updates=unmapped(list(updates)),
        round_number=unmapped(counts[0].round),
        orders=unmapped(orders),
        min_cell=unmapped(study.evaluation.min_cell),
    )
    return add_contributions(measured=measured, orders=orders, seed=study.seed)
