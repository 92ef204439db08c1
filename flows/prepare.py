"""A study's work before training: questions, their audit, and each hospital's cases, features and library."""

import json
from dataclasses import dataclass
from typing import Any

from prefect import unmapped
from prefect.artifacts import create_table_artifact

from flows.hospital import build_libraries
from flows.mapped import gather
from flows.outside import control_of, dataset_content, writer_of
from flows.progress import Steps, log_unused_columns
from flows.run_folder import dataset_summary
from flows.start import Start, choose_start, former_run, seen_before, tell_features
from tasks.audit.control import control_table, withhold
from tasks.audit.document import score_table, shared_table, table
from tasks.audit.step import (
    audit,
    audit_control,
    audit_hospitals,
    count_seen,
    read_audit,
    read_control,
)
from tasks.cases.small_groups import withhold_small, withhold_small_cells
from tasks.cases.withdrawn import all_digests
from tasks.engine.identity import find_record
from tasks.errors import StudyError
from tasks.features.step import see_images
from tasks.federate.step import initial_adapter
from tasks.ingest.step import ingest
from tasks.partition.step import partition, take_cases
from tasks.records.federation import HospitalRefs
from tasks.report.data import left_out_sentence
from tasks.settings import ModelChoice, Study
from tasks.store import Ref
from tasks.synthesize.step import synthesize_questions
from tasks.text.wording import counted


@dataclass(frozen=True)
class Prepared:
    """The state of a study before its first round."""

    hospitals: list[HospitalRefs]
    """Each with a fresh adapter, with which the base answers as it is."""
    start: Start
    """What the first round starts from: that adapter, unless settings say otherwise."""
    copies: Ref
    """The audit of images that pairs of hospitals share."""
    seen: list[Ref]
    """For each hospital, how many of its test images the base was trained on; empty if the base has no record."""
    control: Ref | None
    """The negative control of the audit's near-duplicates, if there is one."""


def prepare(study: Study, model: ModelChoice, steps: Steps) -> Prepared:
    """Read and audit the dataset, partition its images among hospitals, and build each hospital's library.

    Raises StudyError, before anything is done, if the tower lacks a layer of `lora.tower_targets`, or if the study
    cannot go on from the run that `federation.warm_start` names.
    """
    if study.lora.tower_targets:
        _check_targets(study)
    former = former_run(study, model)
    dataset = ingest(settings=study.dataset, content=dataset_content(study.dataset), seed=study.seed)
    steps.done(ingested(dataset))
    log_unused_columns(dataset)

    questions = prepare_questions(study, dataset, steps)
    findings = audit(cases=questions, dataset=dataset, seed=study.seed)
    show_audit(findings, study.evaluation.min_cell)
    control = compare_control(study, dataset, questions, findings)
    shared = withhold_small(findings.manifest()["summary"]["same_image"], study.evaluation.min_cell)
    words = counted(shared, "test cases") if isinstance(shared, int) else f"{shared} number of test cases"
    steps.done(f"audited: {words} with an image of training")

    hospitals, cases, between = partition_images(study, dataset, questions, findings)
    steps.done(f"dealt the images to {counted(len(hospitals), 'hospitals')}")

    before = seen_before(study, former, dataset)
    images, projected = dataset.only("images.parquet"), not study.lora.projector
    seen = see_images(images=images, model=model.seeing, projected=projected, before=before)
    tell_features(seen)
    features, libraries = build_libraries(study, model, hospitals, cases, seen)
    steps.done("computed vision features and built the hospitals' libraries")

    fresh = initial_adapter(model=model, lora=study.lora, seed=study.seed)
    parts = zip(hospitals, cases, features, libraries, strict=True)
    untrained = [
        HospitalRefs(name=name, cases=taken, features=seen_by, library=library, adapter=fresh)
        for name, taken, seen_by, library in parts
    ]
    begin = choose_start(study, model, former, untrained)
    return Prepared(untrained, begin, between, seen_by_base(study, hospitals, cases), control)


def _check_targets(study: Study) -> None:
    from tasks.engine.layers import check_layers  # loads torch, which a cached study without such layers does not need

    lora = study.lora
    targets = [("text", lora.targets, "lora.targets"), ("tower", lora.tower_targets, "lora.tower_targets")]
    check_layers(study.model.name, study.model.revision, targets)


def preparing_steps(study: Study) -> int:
    """How many steps `prepare` counts."""
    return 4 + prepares(study)


def ingested(dataset: Ref) -> str:
    """A sentence on an ingested dataset: its counts, and which rows were left out, if any."""
    counts = dataset_summary(dataset)
    what = "cases" if counts["cases"] or not counts["captions"] else "captions"
    found = f"ingested {counted(counts[what], what)} of {counted(counts['images'], 'images')}"
    return f"{found}; {left_out_sentence(counts)}" if counts["left_out"] else found


def prepare_questions(study: Study, dataset: Ref, steps: Steps) -> Ref:
    """The folder whose cases are partitioned: the dataset, or a new folder if questions are made or reworded.

    Raises StudyError if the dataset has only captions and no generator makes questions from them.
    """
    if not prepares(study):
        counts = dataset.manifest()["summary"]
        if counts["captions"] and not counts["cases"]:
            raise StudyError(
                f"Expected questions in {study.dataset.label}, found {counted(counts['captions'], 'captions')} alone: "
                "set synthesis.generator=rules to make questions of them."
            )
        return dataset
    questions = synthesize_questions(dataset=dataset, settings=study.synthesis, **writer_of(study), seed=study.seed)
    counts = questions.manifest()["summary"]
    steps.done(f"made {counted(counts['synthetic'], 'questions')} beside {counts['published']} published")
    return questions


def prepares(study: Study) -> bool:
    """Whether questions are made or reworded."""
    return study.synthesis.generator != "none" or study.synthesis.choices != "closed"


def partition_images(study: Study, dataset: Ref, questions: Ref, findings: Ref) -> tuple[list[str], list[Ref], Ref]:
    """Partition images among hospitals; returns their names, each one's cases, and the audit of shared images."""
    assignment = partition(cases=questions, settings=study.partition, seed=study.seed, findings=findings)
    table = assignment.manifest()["summary"]["hospitals"]
    least = study.evaluation.min_cell
    rows = withhold_small_cells(table, least)
    create_table_artifact(table=rows, key="partition", description="Cases and images of each hospital")
    between = audit_hospitals(cases=questions, findings=findings, assignment=assignment)
    shared = shared_table(json.loads((between.folder / "hospitals.json").read_text(encoding="utf-8")), least)
    create_table_artifact(table=shared, key="audit-hospitals", description="Images that pairs of hospitals share")
    hospitals = [row["hospital"] for row in table]
    common: dict[str, Any] = {
        "cases": unmapped(questions),
        "dataset": unmapped(dataset),
        "assignment": unmapped(assignment),
        "findings": unmapped(findings),
        "forgotten": unmapped(all_digests()),
    }
    return hospitals, gather(take_cases, hospitals, hospital=hospitals, **common), between


def seen_by_base(study: Study, hospitals: list[str], cases: list[Ref]) -> list[Ref]:
    """Count the test images of each hospital that the base was trained on; empty if the base has no record."""
    record = find_record(study.model.name)
    if record is None:
        return []
    place, content = record
    return gather(
        count_seen,
        hospitals,
        hospital=hospitals,
        cases=cases,
        record=unmapped(place),
        content=unmapped(content),
        min_cell=unmapped(study.evaluation.min_cell),
    )


def compare_control(study: Study, dataset: Ref, questions: Ref, findings: Ref) -> Ref | None:
    """Count the images of the negative control that lie as near to training as copies, and show them in the dashboard.

    None if there is no control.
    """
    settings = control_of(study)
    if settings is None:
        return None
    unrelated = ingest(settings=settings, content=dataset_content(settings), seed=study.seed)
    compared = audit_control(
        cases=questions.only("cases.parquet"),
        dataset=dataset,
        findings=findings.only("image_pairs.parquet"),
        control=unrelated.only("images.parquet"),
        name=settings.label,
    )
    found = read_control(compared)
    rows = control_table(withhold(found, study.evaluation.min_cell) if found else None)
    create_table_artifact(table=rows, key="audit-control", description=f"Near training: test images, {settings.label}")
    return compared


def show_audit(findings: Ref, least: int) -> None:
    """Show the audit in the dashboard, without ids, and with counts of fewer than `least` cases withheld."""
    document = read_audit(findings)
    leaks = table(document, least)
    create_table_artifact(table=leaks, key="audit", description="What test cases share with training")
    if scores := score_table(document, least):
        create_table_artifact(table=scores, key="audit-scores", description="Shares of right answers without a model")
