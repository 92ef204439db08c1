"""The audit as a flow: ingest a dataset, and count what its test cases share with training."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.gone import HOOKS
from flows.outside import control_of, dataset_content
from flows.prepare import compare_control, ingested, prepare_questions, prepares, show_audit
from flows.progress import Steps, log_unused_columns
from tasks.audit.step import audit as audit_dataset
from tasks.audit.step import audit_seen, read_audit, read_control, read_seen
from tasks.engine.identity import find_record
from tasks.ingest.step import ingest
from tasks.settings import Study
from tasks.store import tree_digest


@flow(
    name="audit",
    flow_run_name="audit {study.dataset.label}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    **HOOKS,
)
def audit(study: Study = Study(), against: Path | None = None) -> dict[str, Any]:
    """Audit the dataset of a study, or the questions made from it, and optionally a folder `against`.

    `against` holds images of another dataset. Captions without a question generator are audited as they are.
    Returns the content of `audit.json`, with that of `control.json` as `control`, and with the test images that the
    study's base was trained on as `seen`.
    """
    steps = Steps("audit-progress", total=2 + prepares(study) + (control_of(study) is not None))
    dataset = ingest(settings=study.dataset, content=dataset_content(study.dataset), seed=study.seed)
    steps.done(ingested(dataset))
    log_unused_columns(dataset)
    questions = prepare_questions(study, dataset, steps) if prepares(study) else dataset
    state = tree_digest(against) if against and against.is_dir() else ""
    findings = audit_dataset(
        cases=questions, dataset=dataset, seed=study.seed, against=str(against) if against else None, content=state
    )
    show_audit(findings, study.evaluation.min_cell)
    steps.done("compared images, cases and questions")
    document = read_audit(findings) | {"control": None, "seen": None}
    if control := compare_control(study, dataset, questions, findings):
        document["control"] = read_control(control)
        steps.done("compared the images of the negative control")
    if record := find_record(study.model.name):
        place, content = record
        document["seen"] = read_seen(audit_seen(cases=questions, dataset=dataset, record=place, content=content))
    return document
