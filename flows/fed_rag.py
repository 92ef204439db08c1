"""The study: ingest, partition, retrieve, federate, evaluate, report."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow, unmapped
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFutureList, wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.progress import Steps
from flows.report import write_pages
from flows.run_folder import write_run
from tasks.audit.document import score_table, table
from tasks.audit.step import audit, audit_hospitals, read_audit
from tasks.engine.identity import identify
from tasks.engine.step import compute_features, initial_adapter
from tasks.errors import StudyError
from tasks.evaluate.report import BLIND
from tasks.evaluate.step import (
    answer_baselines,
    answer_held_out,
    count_withheld,
    measure_reliance,
    predict,
    score_hospital,
)
from tasks.federate.step import average, take_update, train_hospital, train_together, validate_hospital
from tasks.ingest.datasets import state
from tasks.ingest.step import ingest
from tasks.partition.step import partition, take_cases
from tasks.retrieve.step import build_hospital_library
from tasks.settings import Study
from tasks.store import Ref
from tasks.synthesize.step import synthesize_questions

DEPTH = 10
"""Neighbours kept of each case, so that another `retrieval.k` finds them there."""


@flow(name="fed-rag", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def fed_rag(study: Study = Study()) -> str:
    """Fine-tune one model across hospitals, let each retrieve from its own cases, and measure the result.

    Returns the folder of the finished run.
    """
    model = identify(study.model.name, study.model.revision)
    steps = Steps("study-progress", total=7 + prepares(study) + study.federation.rounds)

    dataset = ingest(settings=study.dataset, content=content(study), seed=study.seed)
    counts = dataset.manifest()["summary"]
    steps.done(f"ingested {counts['cases']} cases of {counts['images']} images")

    questions = prepare_questions(study, dataset, steps)
    findings = audit(cases=questions, dataset=dataset, seed=study.seed)
    show_audit(findings)
    shared = findings.manifest()["summary"]
    steps.done(f"audited: {shared['same_image']} test cases show an image of training")

    hospitals, cases, dealt = deal_out(study, dataset, questions, findings)
    steps.done(f"dealt the images to {len(hospitals)} hospitals")

    features, libraries = build_libraries(study, model, hospitals, cases)
    steps.done("computed vision features and built the hospitals' libraries")

    own: dict[str, Any] = {"hospital": hospitals, "cases": cases, "features": features, "library": libraries}
    untrained = initial_adapter(model=study.model, lora=study.lora, content=model, seed=study.seed)
    adapter, rounds, updates = federate(study, own, untrained, steps)

    answered = evaluate(study, own, {study.configuration: adapter, "base": untrained})
    scored = gather(score_hospital.map(hospital=hospitals, cases=cases, predictions=answered), hospitals)
    steps.done("answered and scored the test cases")

    held_out, withheld = calibrate(study, own, answered, adapter)
    relied, counted = rely(study, own, adapter)
    steps.done("asked again with altered prompts" if relied else "left out what answers rely on")

    made = [
        dataset,
        *([questions] if prepares(study) else []),
        findings,
        *dealt,
        *cases,
        *features,
        *libraries,
        *updates,
        *(ref for refs in answered for ref in refs),
        *relied,
        *held_out,
        *withheld,
    ]
    kept = own | {"predictions": answered}
    kept |= {name: refs for name, refs in (("reliance", relied), ("calibration", held_out)) if refs}
    run = write_run(study, kept, adapter, rounds, scored, made, counted, withheld)
    page, *_ = write_pages(run)
    results = f"{(run / 'results.md').read_text(encoding='utf-8')}\nWith plots: `{page}`\n"
    create_markdown_artifact(markdown=results, key="results", description="Scores, beside what needs no model")
    steps.done(f"wrote {run}")
    return str(run)


def prepare_questions(study: Study, dataset: Ref, steps: Steps) -> Ref:
    """The folder whose cases are dealt out: the dataset itself, unless questions are made or reworded.

    Raises StudyError for a dataset of captions alone where nothing makes questions of them.
    """
    if not prepares(study):
        counts = dataset.manifest()["summary"]
        if counts["captions"] and not counts["cases"]:
            raise StudyError(
                f"Expected questions in {study.dataset.label}, found {counts['captions']} captions alone: "
                "set synthesis.generator=rules to make questions of them."
            )
        return dataset
    uses_model = study.synthesis.generator == "model" and study.synthesis.model
    content = identify(str(study.synthesis.model), None) if uses_model else ""
    questions = synthesize_questions(dataset=dataset, settings=study.synthesis, content=content, seed=study.seed)
    counts = questions.manifest()["summary"]
    steps.done(f"made {counts['synthetic']} questions beside {counts['published']} published ones")
    return questions


def prepares(study: Study) -> bool:
    """Whether questions are made or reworded."""
    return study.synthesis.generator != "none" or study.synthesis.choices != "closed"


def deal_out(study: Study, dataset: Ref, questions: Ref, findings: Ref) -> tuple[list[str], list[Ref], list[Ref]]:
    """Images to hospitals: the hospitals' names, what each of them takes, and the references of how it was decided."""
    assignment = partition(cases=questions, settings=study.partition, seed=study.seed, findings=findings)
    table = assignment.manifest()["summary"]["hospitals"]
    create_table_artifact(table=table, key="partition", description="Cases and images of each hospital")
    between = audit_hospitals(cases=questions, findings=findings, assignment=assignment)
    shared = json.loads((between.folder / "hospitals.json").read_text(encoding="utf-8"))
    create_table_artifact(table=shared, key="audit-hospitals", description="Images that pairs of hospitals share")
    hospitals = [row["hospital"] for row in table]
    common: dict[str, Any] = {
        "cases": unmapped(questions),
        "dataset": unmapped(dataset),
        "assignment": unmapped(assignment),
    }
    return hospitals, gather(take_cases.map(hospital=hospitals, **common), hospitals), [assignment, between]


def build_libraries(
    study: Study, model: str, hospitals: Sequence[str], cases: Sequence[Ref]
) -> tuple[list[Ref], list[Ref]]:
    """Each hospital's vision features, and the library of its training cases; `model` tells the base's content."""
    features = gather(
        compute_features.map(hospital=hospitals, cases=cases, model=unmapped(study.model), content=unmapped(model)),
        hospitals,
    )
    libraries = build_hospital_library.map(
        hospital=hospitals,
        cases=cases,
        features=features,
        image_weight=unmapped(study.retrieval.image_weight),
        diversity=unmapped(study.retrieval.diversity),
        depth=unmapped(max(DEPTH, study.retrieval.k)),
    )
    return features, gather(libraries, hospitals)


def show_audit(findings: Ref) -> None:
    """The audit in the dashboard."""
    document = read_audit(findings)
    create_table_artifact(table=table(document), key="audit", description="What test cases share with training")
    if scores := score_table(document):
        create_table_artifact(table=scores, key="audit-scores", description="Shares of right answers without a model")


def federate(
    study: Study, own: dict[str, Any], adapter: Ref, steps: Steps
) -> tuple[Ref, list[dict[str, Any]], list[Ref]]:
    """The rounds: every hospital trains from the global adapter, their updates are averaged, every hospital validates.

    Returns the last global adapter, a row for each round, and the references of all that was made on the way.
    """
    settings: dict[str, Any] = {
        name: unmapped(getattr(study, name)) for name in ("model", "lora", "federation", "seed")
    }
    rows: list[dict[str, Any]] = []
    made: list[Ref] = []
    for number in range(1, study.federation.rounds + 1):
        common = settings | {"shown": unmapped(study.retrieval.shown), "round_number": unmapped(number)}
        updates, together = train_round(study, own, common, adapter, number)
        adapter = average(updates=updates, round_number=number)
        held_out = gather(validate_hospital.map(**own, **common, adapter=unmapped(adapter)), own["hospital"])
        rows.append(_round_row(adapter, held_out))
        made += [*together, *updates, adapter, *held_out]
        create_table_artifact(table=rows, key="rounds", description="Losses of each round")
        loss = rows[-1]["eval_loss"]
        held = "" if loss is None else f", held-out loss {loss:.4f}"
        steps.done(f"round {number}: training loss {rows[-1]['train_loss']:.4f}{held}")
    return adapter, rows, made


def train_round(
    study: Study, own: dict[str, Any], common: Mapping[str, Any], adapter: Ref, number: int
) -> tuple[list[Ref], list[Ref]]:
    """Every hospital's update, and the folder where they were trained if that was in one pass over the base."""
    if study.engine.executor == "mapped":
        return gather(train_hospital.map(**own, **common, adapter=unmapped(adapter)), own["hospital"]), []
    together = train_together(**own, **{name: each.value for name, each in common.items()}, adapter=adapter)
    updates = take_update.map(hospital=own["hospital"], together=unmapped(together), round_number=unmapped(number))
    return gather(updates, own["hospital"]), [together]


def evaluate(study: Study, own: dict[str, Any], adapters: Mapping[str, Ref]) -> list[list[Ref]]:
    """Every hospital answers its test cases with each adapter, and by what needs no model: references by hospital.

    Where some are multiple choice, the trained adapter answers these without the image as well.
    """
    settings = _answering(study)
    asked = [(configuration, adapter, False) for configuration, adapter in adapters.items()]
    if any(ref.manifest()["summary"]["test_choices"] for ref in own["cases"]):
        asked.append((BLIND, adapters[study.configuration], True))
    answered = [
        gather(
            predict.map(
                **own,
                **settings,
                configuration=unmapped(configuration),
                adapter=unmapped(adapter),
                blind=unmapped(blind),
            ),
            own["hospital"],
        )
        for configuration, adapter, blind in asked
    ]
    known = {name: own[name] for name in ("hospital", "cases", "library")}
    answered.append(gather(answer_baselines.map(**known, seed=unmapped(study.seed)), own["hospital"]))
    return [list(refs) for refs in zip(*answered, strict=True)]


def rely(study: Study, own: dict[str, Any], adapter: Ref) -> tuple[list[Ref], list[Ref]]:
    """Every hospital answers some test cases with altered prompts: its answers, and the counts that it shares of them.

    Nothing where `evaluation.reliance` is 0.
    """
    if not study.evaluation.reliance:
        return [], []
    drawn: dict[str, Any] = {"count": unmapped(study.evaluation.reliance), "seed": unmapped(study.seed)}
    asked = measure_reliance.map(**own, **_answering(study), **drawn, adapter=unmapped(adapter))
    relied = gather(asked, own["hospital"])
    counted = score_hospital.map(hospital=own["hospital"], cases=own["cases"], predictions=[[ref] for ref in relied])
    return relied, gather(counted, own["hospital"])


def calibrate(
    study: Study, own: dict[str, Any], answered: Sequence[list[Ref]], adapter: Ref
) -> tuple[list[Ref], list[Ref]]:
    """Each hospital's answers to its held-out cases, and what it shares of those to test cases that it would withhold.

    Nothing where `evaluation.coverage` is 1.
    """
    if study.evaluation.coverage == 1:
        return [], []
    chosen: dict[str, Any] = {"configuration": unmapped(study.configuration)}
    holdout: dict[str, Any] = {"holdout": unmapped(study.federation.holdout), "seed": unmapped(study.seed)}
    asked = answer_held_out.map(**own, **chosen, **_answering(study), **holdout, adapter=unmapped(adapter))
    held_out = gather(asked, own["hospital"])
    counted = count_withheld.map(
        hospital=own["hospital"],
        **chosen,
        cases=own["cases"],
        predictions=answered,
        calibration=held_out,
        coverage=unmapped(study.evaluation.coverage),
    )
    return held_out, gather(counted, own["hospital"])


def _answering(study: Study) -> dict[str, Any]:
    """What the answers of all hospitals follow from, beside the adapter."""
    return {
        "model": unmapped(study.model),
        "lora": unmapped(study.lora),
        "answering": unmapped(study.evaluation.answering),
        "shown": unmapped(study.retrieval.shown),
    }


def gather(futures: PrefectFutureList[Ref], hospitals: Sequence[str]) -> list[Ref]:
    """The results of one task for each hospital, once all have ended.

    Raises StudyError that names the hospitals that failed; what the others made is kept.
    """
    wait(list(futures))
    failed = {
        hospital: future.result(raise_on_failure=False)
        for hospital, future in zip(hospitals, futures, strict=True)
        if not future.state.is_completed()
    }
    if failed:
        hospital, error = next(iter(failed.items()))
        reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        raise StudyError(
            f"{len(failed)} of {len(hospitals)} hospitals failed, first {hospital}: {reason} "
            "(the others' work is kept: retry the run once this is mended)"
        )
    return futures.result()


def _round_row(adapter: Ref, held_out: Sequence[Ref]) -> dict[str, Any]:
    row = json.loads((adapter.folder / "round.json").read_text(encoding="utf-8"))
    losses = [json.loads((ref.folder / "validation.json").read_text(encoding="utf-8")) for ref in held_out]
    tokens = sum(each["tokens"] for each in losses)
    row["eval_loss"] = sum(each["loss"] * each["tokens"] for each in losses) / tokens if tokens else None
    return row


def content(study: Study) -> str:
    """The state of the datasets' files."""
    return " ".join(state(name, root) for name, root in study.dataset.sources)
