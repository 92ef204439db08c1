"""The study: ingest, partition, retrieve, federate, evaluate, report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, unmapped
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows.coordinator import federate
from flows.gone import HOOKS
from flows.hospital import build_libraries, find_and_count, show_where
from flows.outside import dataset_content, writer_of
from flows.progress import Steps, tell_unused_columns
from flows.report import write_card, write_pages
from flows.run_folder import SharedRefs, told_of, write_run
from flows.runtimes.local import gather
from tasks.answer.step import (
    answer_baselines,
    answer_held_out,
    count_withheld,
    measure_reliance,
    predict,
    score_hospital,
)
from tasks.audit.document import score_table, shared_table, table
from tasks.audit.step import audit, audit_hospitals, read_audit
from tasks.cases.small_groups import tell, tell_columns
from tasks.cases.withdrawn import all_digests
from tasks.engine.identity import choose_model
from tasks.errors import StudyError
from tasks.features.step import see_images
from tasks.federate.step import initial_adapter
from tasks.ingest.step import ingest
from tasks.partition.step import partition, take_cases
from tasks.records.federation import HospitalRefs
from tasks.report.data import left_out_sentence
from tasks.report.page.dashboard import inline_plots
from tasks.report.results import BLIND
from tasks.settings import ModelChoice, Study
from tasks.store import Ref
from tasks.store.runs import point_latest
from tasks.synthesize.step import synthesize_questions
from tasks.text.wording import counted


@flow(
    name="fed-rag",
    flow_run_name="{study.dataset.label} {study.configuration} seed {study.seed}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    **HOOKS,
)
def fed_rag(study: Study = Study()) -> str:
    """Fine-tune one model across hospitals, let each retrieve from its own cases, and measure the result.

    Returns the folder of the finished run.
    """
    model = choose_model(study.model)
    steps = Steps("study-progress", total=8 + prepares(study) + study.federation.rounds)

    dataset = ingest(settings=study.dataset, content=dataset_content(study), seed=study.seed)
    steps.done(ingested(dataset))
    tell_unused_columns(dataset)

    questions = prepare_questions(study, dataset, steps)
    findings = audit(cases=questions, dataset=dataset, seed=study.seed)
    show_audit(findings, study.evaluation.min_cell)
    shared = tell(findings.manifest()["summary"]["same_image"], study.evaluation.min_cell)
    words = counted(shared, "test cases") if isinstance(shared, int) else f"{shared} number of test cases"
    steps.done(f"audited: {words} with an image of training")

    hospitals, cases, between = deal_out(study, dataset, questions, findings)
    steps.done(f"dealt the images to {counted(len(hospitals), 'hospitals')}")

    seen = see_images(images=dataset.only("images.parquet"), model=model.seeing, projected=not study.lora.projector)
    features, libraries = build_libraries(study, model, hospitals, cases, seen)
    steps.done("computed vision features and built the hospitals' libraries")

    start = initial_adapter(model=model, lora=study.lora, seed=study.seed)
    untrained = [
        HospitalRefs(name=name, cases=own, features=seen_by, library=library, adapter=start)
        for name, own, seen_by, library in zip(hospitals, cases, features, libraries, strict=True)
    ]
    trained, rounds, validated = federate(study, model, untrained, steps)

    answered = evaluate(study, model, {study.configuration: trained, "base": untrained})
    least = unmapped(study.evaluation.min_cell)
    scoring = score_hospital.map(hospital=hospitals, cases=cases, predictions=answered, min_cell=least)
    scored = gather(scoring, hospitals)
    steps.done("answered and scored the test cases")

    held_out, withheld = calibrate(study, model, trained, answered)
    relied, altered = rely(study, model, trained)
    failures, failing = find_and_count(study, model, trained, relied)
    steps.done("asked again with altered prompts" if relied else "left out what answers rely on")

    explained, shares = show_where(study, model, trained, answered)
    steps.done("explained some answers" if explained else "left out where answers come from")

    optional = {"reliance": relied, "failures": failures, "saliency": explained, "calibration": held_out}
    kept: dict[str, Any] = {"predictions": answered, "scores": scored} | {
        name: refs for name, refs in optional.items() if refs
    }
    told = SharedRefs(
        copies=between,
        losses=validated,
        scores=scored,
        reliance=altered,
        failures=failing,
        shares=shares,
        abstention=withheld,
    )
    run = write_run(study, model.content, trained, kept, rounds, told)
    page, *_ = write_pages(run)
    write_card(run)
    create_markdown_artifact(
        markdown=show_results(run, page), key="results", description="Scores, beside what needs no model"
    )
    point_latest(run)  # last of all: whoever follows it finds everything of a run
    steps.done(f"wrote {run}")
    return str(run)


def ingested(dataset: Ref) -> str:
    """What there is of an ingested dataset, and what is not: how many rows of how many were left out, and why."""
    counts = told_of(dataset)
    what = "cases" if counts["cases"] or not counts["captions"] else "captions"
    found = f"ingested {counted(counts[what], what)} of {counted(counts['images'], 'images')}"
    return f"{found}; {left_out_sentence(counts)}" if counts["left_out"] else found


def show_results(run: Path, page: Path) -> str:
    """A run for the dashboard: where its page is, its key plots, and its results."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    plots = inline_plots(results, (run / "losses.png").read_bytes())
    where = f"All of it, in one file: `{page.resolve()}`"  # no link: a browser opens no file from the dashboard
    return f"{where}\n\n{plots}\n\n{(run / 'results.md').read_text(encoding='utf-8')}"


def prepare_questions(study: Study, dataset: Ref, steps: Steps) -> Ref:
    """The folder whose cases are dealt out: the dataset itself, unless questions are made or reworded.

    Raises StudyError for a dataset of captions alone where nothing makes questions of them.
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


def deal_out(study: Study, dataset: Ref, questions: Ref, findings: Ref) -> tuple[list[str], list[Ref], Ref]:
    """Images to hospitals: the hospitals' names, what each of them takes, and what pairs of them share."""
    assignment = partition(cases=questions, settings=study.partition, seed=study.seed, findings=findings)
    table = assignment.manifest()["summary"]["hospitals"]
    least = study.evaluation.min_cell
    told = tell_columns(table, least)
    create_table_artifact(table=told, key="partition", description="Cases and images of each hospital")
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
    return hospitals, gather(take_cases.map(hospital=hospitals, **common), hospitals), between


def show_audit(findings: Ref, least: int) -> None:
    """The audit in the dashboard: its counts, those of fewer than `least` cases withheld, and no id."""
    document = read_audit(findings)
    leaks = table(document, least)
    create_table_artifact(table=leaks, key="audit", description="What test cases share with training")
    if scores := score_table(document):
        create_table_artifact(table=scores, key="audit-scores", description="Shares of right answers without a model")


def evaluate(study: Study, model: ModelChoice, configurations: Mapping[str, list[HospitalRefs]]) -> list[list[Ref]]:
    """Every hospital answers its test cases with each adapter, and by what needs no model: references by hospital.

    `configurations` gives by name the hospitals with their adapters.
    Where some are multiple choice, the trained adapter answers these without the image as well.
    """
    settings = _answering(study, model)
    trained = configurations[study.configuration]
    names = [hospital.name for hospital in trained]
    asked = [(configuration, given, False) for configuration, given in configurations.items()]
    if any(hospital.cases.manifest()["summary"]["test_choices"] for hospital in trained):
        asked.append((BLIND, trained, True))
    answered = [
        gather(
            predict.map(hospital=given, **settings, configuration=unmapped(configuration), blind=unmapped(blind)),
            names,
        )
        for configuration, given, blind in asked
    ]
    known: dict[str, Any] = {"cases": [each.cases for each in trained], "library": [each.library for each in trained]}
    answered.append(gather(answer_baselines.map(hospital=names, **known, seed=unmapped(study.seed)), names))
    return [list(refs) for refs in zip(*answered, strict=True)]


def rely(study: Study, model: ModelChoice, hospitals: list[HospitalRefs]) -> tuple[list[Ref], list[Ref]]:
    """Every hospital answers some test cases with altered prompts: its answers, and the counts that it shares of them.

    Nothing where `evaluation.reliance` is 0.
    """
    if not study.evaluation.reliance:
        return [], []
    drawn: dict[str, Any] = {"count": unmapped(study.evaluation.reliance), "seed": unmapped(study.seed)}
    names = [hospital.name for hospital in hospitals]
    relied = gather(measure_reliance.map(hospital=hospitals, **_answering(study, model), **drawn), names)
    counted = score_hospital.map(
        hospital=names,
        cases=[hospital.cases for hospital in hospitals],
        predictions=[[ref] for ref in relied],
        min_cell=unmapped(study.evaluation.min_cell),
        by_image=unmapped(False),
    )
    return relied, gather(counted, names)


def calibrate(
    study: Study, model: ModelChoice, hospitals: list[HospitalRefs], answered: Sequence[list[Ref]]
) -> tuple[list[Ref], list[Ref]]:
    """Each hospital's answers to its held-out cases, and what it shares of those to test cases that it would withhold.

    Nothing where `evaluation.coverage` is 1.
    """
    if study.evaluation.coverage == 1:
        return [], []
    chosen: dict[str, Any] = {"configuration": unmapped(study.configuration)}
    holdout: dict[str, Any] = {"holdout": unmapped(study.federation.holdout), "seed": unmapped(study.seed)}
    names = [hospital.name for hospital in hospitals]
    held_out = gather(answer_held_out.map(hospital=hospitals, **chosen, **_answering(study, model), **holdout), names)
    counted = count_withheld.map(
        hospital=names,
        **chosen,
        cases=[hospital.cases for hospital in hospitals],
        predictions=answered,
        calibration=held_out,
        coverage=unmapped(study.evaluation.coverage),
        min_cell=unmapped(study.evaluation.min_cell),
    )
    return held_out, gather(counted, names)


def _answering(study: Study, model: ModelChoice) -> dict[str, Any]:
    """What the answers of all hospitals follow from, beside the adapter."""
    return {
        "model": unmapped(model),
        "lora": unmapped(study.lora),
        "answering": unmapped(study.evaluation.answering),
        "shown": unmapped(study.retrieval.shown),
    }
