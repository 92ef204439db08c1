"""The evaluate steps: a hospital answers its test cases, and shares what its answers score."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tasks.records import (
    Case,
    FailureModes,
    Neighbour,
    Outcome,
    Prediction,
    Saliency,
    Share,
    read_images,
    read_table,
    write_table,
)
from tasks.settings import AnsweringSettings, LoraSettings, ModelSettings, ShownSettings
from tasks.step import Folder, stage
from tasks.store import Ref


@stage(
    "predictions",
    area="hospitals/{hospital}",
    code=["evaluate", "engine", "normalise", "options"],
    title="{configuration} {hospital}",
)
def predict(
    folder: Folder,
    hospital: str,
    configuration: str,
    cases: Ref,
    features: Ref,
    library: Ref,
    adapter: Ref,
    model: ModelSettings,
    lora: LoraSettings,
    answering: AnsweringSettings,
    shown: ShownSettings,
    blind: bool = False,
) -> None:
    """The adapter's answers to a hospital's test cases, with that hospital's own neighbours.

    `blind` is the text-only control of multiple choice: the test cases with options alone, without image or neighbours.
    """
    from tasks.engine.hospital import open_hospital
    from tasks.engine.prompt import build_blind_prompt
    from tasks.evaluate.answer import answer_prompts

    own = open_hospital(cases.folder, features.folder, library.folder)
    test = [case for case in own.cases if case.split == "test" and (case.options or not blind)]
    prompts = [build_blind_prompt(case) for case in test] if blind else own.prompts(test, shown)
    answers = answer_prompts(own, prompts, adapter.folder, model, lora, answering, f"{configuration} {hospital}")
    with folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, _answered(configuration, hospital, test, prompts, answers))


@stage(
    "calibration",
    area="hospitals/{hospital}",
    code=["evaluate", "engine", "holdout", "normalise", "options"],
    title="calibration {hospital}",
)
def answer_held_out(
    folder: Folder,
    hospital: str,
    configuration: str,
    cases: Ref,
    features: Ref,
    library: Ref,
    adapter: Ref,
    model: ModelSettings,
    lora: LoraSettings,
    answering: AnsweringSettings,
    shown: ShownSettings,
    holdout: float,
    seed: int,
) -> None:
    """The adapter's answers to the cases that training left out: what its confidence is calibrated on."""
    from tasks.engine.hospital import open_hospital
    from tasks.evaluate.answer import answer_prompts
    from tasks.holdout import split_holdout

    own = open_hospital(cases.folder, features.folder, library.folder)
    _, held_out = split_holdout(own.cases, holdout, seed)
    prompts = own.prompts(held_out, shown)
    answers = answer_prompts(own, prompts, adapter.folder, model, lora, answering, f"calibration {hospital}")
    with folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, _answered(configuration, hospital, held_out, prompts, answers))


@stage(
    "reliance",
    area="hospitals/{hospital}",
    code=["evaluate", "engine", "normalise", "options"],
    title="reliance {hospital}",
)
def measure_reliance(
    folder: Folder,
    hospital: str,
    cases: Ref,
    features: Ref,
    library: Ref,
    adapter: Ref,
    model: ModelSettings,
    lora: LoraSettings,
    answering: AnsweringSettings,
    shown: ShownSettings,
    count: int,
    seed: int,
) -> None:
    """The adapter's answers to some of a hospital's test cases, as they are and with each alteration of the prompt.

    `predictions.parquet` holds them under the alteration's name as configuration.
    """
    from tasks.engine.adapter import load_state
    from tasks.engine.batch import encode
    from tasks.engine.generate import generate
    from tasks.engine.hospital import open_hospital
    from tasks.engine.prompt import build_prompt
    from tasks.engine.shared import shared_engine
    from tasks.engine.vision import encode_images, gather_features
    from tasks.evaluate.reliance import alter, as_asked, sample, stand_ins

    own = open_hospital(cases.folder, features.folder, library.folder)
    test = sample([case for case in own.cases if case.split == "test"], count, seed)
    if not test:
        with folder.open("predictions.parquet") as sink:
            write_table(sink, Prediction, [])
        return
    asked = as_asked(test, own.prompts(test, shown), own.cases, own.neighbours)
    changed = [(name, each) for name, rows in alter(asked, own.cases, seed).items() for each in rows]
    wanted = {case.image_id for case in test}
    images = [image for image in read_images(cases.folder / "images.parquet") if image.id in wanted]
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(adapter.folder))
        others = encode_images(engine.base, stand_ins(images, seed))
        seen = {case.image_id for _, each in changed for case in (each.case, *each.shown)} - others.starts.keys()
        places = {image_id: (own.features, image_id) for image_id in seen}
        together = gather_features(places | {image_id: (others, image_id) for image_id in others.starts})
        answers = generate(
            engine,
            together,
            encode(
                engine.base,
                together,
                [build_prompt(each.case, each.shown, each.similarities, shown) for _, each in changed],
            ),
            tokens=answering.tokens_per_pass,
            max_new_tokens=answering.max_new_tokens,
            title=f"reliance {hospital}",
        )
    rows = [
        replace(row, confidence=answer.confidence)
        for (name, each), answer in zip(changed, answers, strict=True)
        for row in _predictions(name, hospital, [each.case], [answer.text], [tuple(c.id for c in each.shown)])
    ]
    with folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, rows)


@stage(
    "failures",
    area="hospitals/{hospital}",
    code=["evaluate", "engine", "normalise", "options"],
    title="failures {hospital}",
)
def find_failures(
    folder: Folder,
    hospital: str,
    cases: Ref,
    features: Ref,
    library: Ref,
    adapter: Ref,
    reliance: Ref,
    model: ModelSettings,
    lora: LoraSettings,
    shown: ShownSettings,
    tokens: int,
    count: int,
    seed: int,
) -> None:
    """Failure modes of some of the answers that `reliance` holds, with altered prompts and without: `failures.parquet`.

    Examples stay here: case ids with their modes are for the hospital's own page.
    """
    from tasks.engine.adapter import load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.evaluate.evidence import answers_by_case, examine, open_seen
    from tasks.evaluate.failures import judge_all, records
    from tasks.evaluate.reliance import as_asked, sample

    own = open_hospital(cases.folder, features.folder, library.folder)
    answers = answers_by_case(read_table(reliance.folder / "predictions.parquet", Prediction))
    test = sample([case for case in own.cases if case.id in answers], count, seed)
    asked = as_asked(test, own.prompts(test, shown), own.cases, own.neighbours)
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(adapter.folder))
        seen = open_seen(engine.base, own, cases.folder, asked, shown, tokens)
        found = [examine(seen, each, answers[each.case.id]) for each in asked]
    with folder.open("failures.parquet") as sink:
        write_table(sink, FailureModes, records(found, judge_all(found)))


@stage(
    "saliency",
    area="hospitals/{hospital}",
    code=["evaluate", "engine", "normalise", "options"],
    title="saliency {hospital}",
)
def explain_some(
    folder: Folder,
    hospital: str,
    cases: Ref,
    features: Ref,
    library: Ref,
    adapter: Ref,
    predictions: Ref,
    model: ModelSettings,
    lora: LoraSettings,
    answering: AnsweringSettings,
    shown: ShownSettings,
    counts: list[int],
    seed: int,
) -> None:
    """Where some of the adapter's answers come from: maps in `saliency.parquet`, and `shares.parquet`."""
    from tasks.engine.hospital import open_hospital
    from tasks.evaluate.explained import draw, explain_answers

    own = open_hospital(cases.folder, features.folder, library.folder)
    answers = read_table(predictions.folder / "predictions.parquet", Prediction)
    chosen, images = draw(own.cases, counts, seed), cases.folder / "images.parquet"
    tokens = answering.tokens_per_pass
    found = explain_answers(own, images, chosen, answers, adapter.folder, model, lora, shown, tokens)
    with folder.open("saliency.parquet") as sink:
        write_table(sink, Saliency, [row for each in found for row in each.maps])
    with folder.open("shares.parquet") as sink:
        write_table(sink, Share, [row for each in found for row in each.shares])


@stage("shares", area="shared", code=["evaluate"], title="shares {hospital}")
def share_means(folder: Folder, hospital: str, saliency: Ref) -> None:
    """The mean shares of the prompt's parts in a hospital's explained answers: all that it shares of them."""
    from tasks.evaluate.shares import mean_shares

    rows = read_table(saliency.folder / "shares.parquet", Share)
    folder.write_json("shares.json", {"hospital": hospital, **mean_shares(rows)})


@stage("baselines", area="hospitals/{hospital}", code=["evaluate", "blind", "normalise"], title="baselines {hospital}")
def answer_baselines(folder: Folder, hospital: str, cases: Ref, library: Ref, seed: int) -> None:
    """What needs no model, answered from the hospital's own training cases."""
    from tasks.blind import majority, question_only
    from tasks.evaluate.baselines import copy_nearest

    rows = read_table(cases.folder / "cases.parquet", Case)
    neighbours = read_table(library.folder / "neighbours.parquet", Neighbour)
    train = [case for case in rows if case.split == "train"]
    test = [case for case in rows if case.split == "test"]
    nearest = {neighbour.case_id: (neighbour.neighbour_id,) for neighbour in neighbours if neighbour.rank == 0}
    nothing = [() for _ in test]
    copied = [nearest.get(case.id, ()) for case in test]
    with folder.open("predictions.parquet") as sink:
        write_table(
            sink,
            Prediction,
            [
                *_predictions("majority", hospital, test, majority(train, test), nothing),
                *_predictions("question_only", hospital, test, question_only(train, test, seed), nothing),
                *_predictions("copy_nearest", hospital, test, copy_nearest(train, test, neighbours), copied),
            ],
        )


def _answered(
    configuration: str, hospital: str, cases: Sequence[Case], prompts: Sequence[Any], answers: Sequence[Any]
) -> list[Prediction]:
    """What a model answered, with the cases that its prompts showed and how sure it was."""
    texts, shown = [answer.text for answer in answers], [prompt.shown_ids for prompt in prompts]
    rows = _predictions(configuration, hospital, cases, texts, shown)
    return [replace(row, confidence=answer.confidence) for row, answer in zip(rows, answers, strict=True)]


def _predictions(
    configuration: str, hospital: str, cases: Sequence[Case], answers: Sequence[str], shown: Sequence[tuple[str, ...]]
) -> list[Prediction]:
    return [
        Prediction(configuration, case.id, hospital, case.kind, case.question, case.answer, answer, ids, case.options)
        for case, answer, ids in zip(cases, answers, shown, strict=True)
    ]


@stage("scores", area="shared", code=["evaluate", "normalise", "options"], title="score {hospital}")
def score_hospital(folder: Folder, hospital: str, cases: Ref, predictions: list[Ref]) -> None:
    """Counts and sums over a hospital's answers, and numbers of each answer: all that leaves the hospital of them."""
    from tasks.evaluate.outcomes import judge, outcomes
    from tasks.evaluate.score import Row, summarise

    answers = [row for ref in predictions for row in read_table(ref.folder / "predictions.parquet", Prediction)]
    rows = [judge(answer) for answer in answers]
    judged: dict[str, list[Row]] = {}
    for answer, row in zip(answers, rows, strict=True):
        judged.setdefault(answer.configuration, []).append(row)
    tallies = {configuration: summarise(each).to_json() for configuration, each in judged.items()}
    folder.write_json("scores.json", {"hospital": hospital, "tallies": tallies})
    with folder.open("outcomes.parquet") as sink:
        write_table(sink, Outcome, outcomes(answers, rows, read_table(cases.folder / "cases.parquet", Case)))


@stage("failure-counts", area="shared", code=["evaluate", "normalise", "options"], title="count failures {hospital}")
def count_failures(folder: Folder, hospital: str, failures: Ref) -> None:
    """How many of a hospital's examined answers show each failure mode: all that it shares of them."""
    from tasks.evaluate.failures import count_modes

    rows = read_table(failures.folder / "failures.parquet", FailureModes)
    folder.write_json("failures.json", {"hospital": hospital, **count_modes(rows)})


@stage("abstention", area="shared", code=["evaluate", "normalise", "options"], title="abstention {hospital}")
def count_withheld(
    folder: Folder,
    hospital: str,
    configuration: str,
    cases: Ref,
    predictions: list[Ref],
    calibration: Ref,
    coverage: float,
) -> None:
    """What a hospital would answer and withhold at a coverage: sums over its images, all that is shared of it."""
    from tasks.evaluate.abstain import conformal_threshold, count_answers

    images = {case.id: case.image_id for case in read_table(cases.folder / "cases.parquet", Case)}
    rows = [row for ref in predictions for row in read_table(ref.folder / "predictions.parquet", Prediction)]
    own = [row for row in rows if row.configuration == configuration]
    held_out = read_table(calibration.folder / "predictions.parquet", Prediction)
    threshold = conformal_threshold([row.confidence or 0.0 for row in held_out], coverage)
    counted = count_answers(own, [images[row.case_id] for row in own], threshold)
    told = {"hospital": hospital, "held_out_cases": len(held_out), "images": counted}
    folder.write_json("abstention.json", told)


@stage("lightfed", area="source", code=["evaluate", "normalise", "options"])
def score_as_lightfed(folder: Folder, predictions: list[Ref]) -> None:
    """LightFED's four metrics of each configuration, over all hospitals' answers: `lightfed.json`.

    Its F1 tells every wording apart, so that answers themselves are needed: a simulation has them in one place, and a
    real federation does not.
    """
    from tasks.evaluate.published import lightfed_summary

    answers = [row for ref in predictions for row in read_table(ref.folder / "predictions.parquet", Prediction)]
    names = sorted({row.configuration for row in answers})
    folder.write_json(
        "lightfed.json",
        {
            name: lightfed_summary(
                [(row.prediction, row.reference, row.kind) for row in answers if row.configuration == name]
            )
            for name in names
        },
    )
