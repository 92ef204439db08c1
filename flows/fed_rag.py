"""The study: ingest, partition, retrieve, federate, evaluate, report."""

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.again import asked, tell
from flows.coordinator import federate
from flows.disk import warn_if_large
from flows.evaluate import Adapters, evaluate
from flows.gone import HOOKS
from flows.parts import within_part
from flows.personal import Personalised, check_personal_layers, personalise
from flows.prepare import prepare, preparing_steps
from flows.privacy import protect, spent
from flows.progress import Steps
from flows.promotion import NOT_PROMOTED, consider, tell_verdict
from flows.report import write_card, write_pages
from flows.run_folder import SharedRefs, write_run
from flows.runners.runner import working_on
from flows.shared_artifacts import refuse_shared, share
from flows.start import refuse_no_adapter
from flows.suitable import check_strategy
from tasks.engine.identity import choose_model
from tasks.report.page.dashboard import inline_plots
from tasks.settings import Study
from tasks.store.again import asking
from tasks.store.checkpoints import checkpoints_every
from tasks.store.runs import point_latest


@flow(
    name="fed-rag",
    flow_run_name="{study.dataset.label} {study.configuration} seed {study.seed}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    **HOOKS,
)
def fed_rag(study: Study = Study(), again_from: str | None = None) -> str:
    """Fine-tune one model across hospitals, let each retrieve from its own cases, and measure the result.

    Returns the folder of the finished run. If the gates of `promotion` refuse it, the flow run's state says so by its
    name; a caller gets the folder all the same.

    Args:
        study: its settings.
        again_from: a stage (as `library`) or a part (as `round 2`) that is done again with all that follows from it,
            though it is finished; otherwise what is finished is reused.
    """
    check_strategy(study)
    refuse_no_adapter(study)
    again = asked(again_from, study, str(flow_run.id))
    share(study.artifacts.root)
    if study.federation.privacy.unit != "none":
        refuse_shared("with federation.privacy, whose keys stay there")
    with asking(again), working_on(study.engine), checkpoints_every(study.engine.checkpoint_minutes):
        run = run_study(study)
    tell(again)
    if study.promotion.enabled:
        verdict = consider(run, study.promotion)
        tell_verdict(verdict)
        if not verdict.promoted:
            refused: Any = Completed(name=NOT_PROMOTED, message=verdict.sentence, data=str(run))
            return refused  # Prefect takes a state for the flow's, and its data for what the flow returns
    return str(run)


def run_study(study: Study) -> Path:
    """Run all parts of a study, and write its run; returns the run's folder."""
    model = choose_model(study.model)
    steps = Steps("study-progress", total=preparing_steps(study) + study.federation.rounds + 4)

    prepared = within_part("prepare", lambda: prepare(study, model, steps))
    start = prepared.start.adapter
    check_personal_layers(study, start)
    starting = [hospital.given(start) for hospital in prepared.hospitals]
    allowed, hospitals, budgets = protect(study, starting)
    federated = federate(allowed, model, hospitals, steps)
    own = Personalised(federated.trained)
    if study.federation.personal != "none":
        own = within_part("personalise", lambda: personalise(study, model, federated, start))
    adapters = Adapters(own.hospitals, prepared.hospitals, own.personal)
    found = within_part("evaluate", lambda: evaluate(study, model, adapters, steps))

    shared = SharedRefs(
        copies=prepared.copies,
        losses=federated.validated,
        scores=found.scores,
        control=prepared.control,
        reliance=found.reliance,
        failures=found.failures,
        shares=found.shares,
        abstention=found.abstention,
        seen=prepared.seen,
        gains=found.gains,
        privacy=spent(budgets, federated.rows),
    )
    run = write_run(study, model.content, own.hospitals, found.kept, federated.rows, shared, prepared.start.told)
    page, *_ = write_pages(run)
    write_card(run)
    create_markdown_artifact(
        markdown=show_results(run, page), key="results", description="Scores, beside what needs no model"
    )
    point_latest(run)  # last, so that the link leads to a complete run
    warn_if_large(study.artifacts.max_bytes)
    steps.done(f"wrote {run}")
    return run


def show_results(run: Path, page: Path) -> str:
    """A run as Markdown for the dashboard: the path of its page, its key plots, and its results."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    plots = inline_plots(results, (run / "losses.png").read_bytes())
    where = f"All of it, in one file: `{page.resolve()}`"  # no link: a browser opens no local file from the dashboard
    return f"{where}\n\n{plots}\n\n{(run / 'results.md').read_text(encoding='utf-8')}"
