"""The answer stages: a hospital answers its test cases, and shares the scores of its answers."""

from collections import Counter

from tasks.answer.predictions import answered, predictions
from tasks.records import Case, Neighbour, Prediction, read_table, write_table
from tasks.records.copied import read_copied
from tasks.records.federation import HospitalRefs
from tasks.records.shared_documents import AbstentionDocument, GainDocument, ScoresDocument
from tasks.score.image_sums import sums_schema
from tasks.settings import AnsweringSettings, ContextSettings, LoraSettings, ModelChoice
from tasks.store import Ref
from tasks.store.leaving import Document, Table
from tasks.store.stage import Folder, stage


@stage(
    "predictions",
    area="hospitals/{hospital.name}",
    title="{configuration} {hospital.name}",
)
def predict(
    folder: Folder,
    hospital: HospitalRefs,
    configuration: str,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    context: ContextSettings,
    without_image: bool = False,
) -> None:
    """Answer a hospital's test cases with its adapter and the neighbours from its library.

    `without_image` is the text-only control: only test cases with options, without image and without neighbours.
    """
    from tasks.answer.predict import answer_prompts
    from tasks.engine.hospital import open_hospital
    from tasks.engine.prompt import build_prompt_without_image

    hospital_data = open_hospital(hospital)
    test = [case for case in hospital_data.cases if case.split == "test" and (case.options or not without_image)]
    prompts = (
        [build_prompt_without_image(case) for case in test] if without_image else hospital_data.prompts(test, context)
    )
    answers = answer_prompts(
        hospital_data, prompts, hospital.adapter.folder, model, lora, answering, f"{configuration} {hospital.name}"
    )
    with folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, answered(configuration, hospital.name, test, prompts, answers))


@stage("tuning", area="hospitals/{hospital.name}", title="tuning {hospital.name}")
def tune_retrieval(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    context: ContextSettings,
    mixture: bool,
    holdout: float,
    seed: int,
) -> None:
    """Choose how a hospital uses its retrieved cases, by its adapter's loss on its held-out cases: `tuning.json`."""
    from tasks.answer.held_out import held_out_rows
    from tasks.answer.tuning import tune
    from tasks.cases.holdout import split_holdout
    from tasks.engine.hospital import open_hospital
    from tasks.records.tuning import TUNING

    hospital_data = open_hospital(hospital)
    _, held_out = split_holdout(hospital_data.cases, holdout, seed)
    rows = held_out_rows(hospital_data, held_out, hospital.adapter.folder, model, lora, answering, context)
    found = tune(rows, context.most, context.floor, chooses_context=context.k == "auto", mixes=mixture)
    folder.write_json(TUNING, found.model_dump())


@stage(
    "calibration",
    area="hospitals/{hospital.name}",
    title="calibration {hospital.name}",
)
def answer_held_out(
    folder: Folder,
    hospital: HospitalRefs,
    configuration: str,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    context: ContextSettings,
    holdout: float,
    seed: int,
) -> None:
    """Answer a hospital's held-out cases with its adapter, to calibrate its confidence."""
    from tasks.answer.predict import answer_prompts
    from tasks.cases.holdout import split_holdout
    from tasks.engine.hospital import open_hospital

    hospital_data = open_hospital(hospital)
    _, held_out = split_holdout(hospital_data.cases, holdout, seed)
    prompts = hospital_data.prompts(held_out, context)
    answers = answer_prompts(
        hospital_data, prompts, hospital.adapter.folder, model, lora, answering, f"calibration {hospital.name}"
    )
    with folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, answered(configuration, hospital.name, held_out, prompts, answers))


@stage(
    "baselines",
    area="hospitals/{hospital}",
    title="baselines {hospital}",
)
def answer_baselines(folder: Folder, hospital: str, cases: Ref, features: Ref, library: Ref, seed: int) -> None:
    """Answer the test cases by the baselines that need no language model, from the hospital's training cases."""
    from tasks.engine.vision import FEATURES, load_features
    from tasks.score.baselines import copy_nearest, image_and_question, majority, question_only

    rows = read_table(cases.folder / "cases.parquet", Case)
    neighbours = read_table(library.folder / "neighbours.parquet", Neighbour)
    train = [case for case in rows if case.split == "train"]
    test = [case for case in rows if case.split == "test"]
    nearest = {neighbour.case_id: (neighbour.neighbour_id,) for neighbour in neighbours if neighbour.rank == 0}
    nothing = [() for _ in test]
    copied = [nearest.get(case.id, ()) for case in test]
    shown = sorted({case.image_id for case in rows})
    images = dict(zip(shown, load_features(features.folder / FEATURES).pooled(shown), strict=True))
    seeing = image_and_question(train, test, images, seed)
    with folder.open("predictions.parquet") as sink:
        write_table(
            sink,
            Prediction,
            [
                *predictions("majority", hospital, test, majority(train, test), nothing),
                *predictions("question_only", hospital, test, question_only(train, test, seed), nothing),
                *predictions("image_and_question", hospital, test, seeing, nothing),
                *predictions("copy_nearest", hospital, test, copy_nearest(train, test, neighbours), copied),
            ],
        )


@stage(
    "scores",
    area="shared",
    title="score {hospital}",
    leaves=("scores", "counts"),
    writes={"scores.json": Document(ScoresDocument), "sums.parquet": Table(sums_schema())},
)
def score_hospital(
    folder: Folder,
    hospital: str,
    cases: Ref,
    predictions: list[Ref],
    min_cell: int,
    by_image: bool = True,
    elsewhere: list[str] | None = None,
) -> None:
    """Write what a hospital shares of its answers: `scores.json`, and with `by_image` calibration and `sums.parquet`.

    Figures of fewer than `min_cell` cases are withheld. docs/privacy.md lists the fields. `elsewhere` has the ids of
    test images that hospitals on other machines train on, as those with a copy in training do here.
    """
    from tasks.score.image_sums import write_sums
    from tasks.score.outcomes import judge, outcomes
    from tasks.score.sharing import share

    answers = [row for ref in predictions for row in read_table(ref.folder / "predictions.parquet", Prediction)]
    known = read_table(cases.folder / "cases.parquet", Case)
    judged = [judge(answer) for answer in answers]
    copied = read_copied(cases.folder)
    if elsewhere:
        copied = frozenset(elsewhere) | (copied or frozenset())
    shared = share(outcomes(answers, judged, known, copied), min_cell)
    document = {"hospital": hospital, "tallies": shared.tallies, "withheld": shared.withheld}
    if by_image:
        document["calibration"] = {
            name: [[each.n, each.confidence, each.correct] for each in bins]
            for name, bins in shared.calibration.items()
        }
        with folder.open("sums.parquet") as sink:
            write_sums(sink, shared.sums)
    folder.write_json("scores.json", document)


@stage(
    "abstention",
    area="shared",
    title="abstention {hospital}",
    leaves=("counts",),
    writes={"abstention.json": Document(AbstentionDocument)},
)
def count_withheld(
    folder: Folder,
    hospital: str,
    configuration: str,
    cases: Ref,
    predictions: list[Ref],
    calibration: Ref,
    coverage: float,
    min_cell: int,
) -> None:
    """Count what a hospital would answer and withhold at a coverage, in sums per image; it shares only these.

    Figures of fewer than `min_cell` cases are withheld.
    """
    from tasks.answer.abstain import count_answers, held_out_threshold, hide_few
    from tasks.cases.small_groups import withhold_small

    known = read_table(cases.folder / "cases.parquet", Case)
    images = {case.id: case.image_id for case in known}
    rows = [row for ref in predictions for row in read_table(ref.folder / "predictions.parquet", Prediction)]
    chosen = [row for row in rows if row.configuration == configuration]
    held_out = read_table(calibration.folder / "predictions.parquet", Prediction)
    threshold = held_out_threshold(held_out, known, coverage)
    counted, hidden = hide_few(count_answers(chosen, [images[row.case_id] for row in chosen], threshold), min_cell)
    left_out = {
        "held_out_cases": withhold_small(len(held_out), min_cell),
        "held_out_images": withhold_small(len({images[row.case_id] for row in held_out}), min_cell),
    }
    folder.write_json("abstention.json", {"hospital": hospital, **left_out, "images": counted, "withheld": hidden})


@stage(
    "gain",
    area="shared",
    title="gain {hospital}",
    leaves=("scores", "counts"),
    writes={"gain.json": Document(GainDocument)},
)
def count_gain(
    folder: Folder, hospital: str, configurations: list[str], cases: Ref, predictions: list[Ref], min_cell: int
) -> None:
    """Count the right answers of two configurations by image, in one table, so that their difference is of pairs.

    Nothing is shared of a kind of question of which there are fewer than `min_cell` test cases.
    """
    from tasks.answer.gain import right_by_image
    from tasks.cases.small_groups import is_small

    known = [case for case in read_table(cases.folder / "cases.parquet", Case) if case.split == "test"]
    kinds = {kind for kind, count in Counter(case.kind for case in known).items() if not is_small(count, min_cell)}
    images = {case.id: case.image_id for case in known}
    rows = [row for ref in predictions for row in read_table(ref.folder / "predictions.parquet", Prediction)]
    counted = right_by_image([row for row in rows if row.kind in kinds], images, configurations)
    folder.write_json("gain.json", {"hospital": hospital, "images": counted, "withheld": bool(known) and not kinds})


@stage("lightfed", area="source")
def score_as_lightfed(folder: Folder, predictions: list[Ref]) -> None:
    """Compute LightFED's four metrics of each configuration over all hospitals' answers: `lightfed.json`.

    Its F1 treats every wording as a label, so it needs the answers themselves. A simulation has them in one place; a
    real federation does not.
    """
    from tasks.score.published import lightfed_summary

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


@stage(
    "reliance",
    area="hospitals/{hospital.name}",
    title="reliance {hospital.name}",
)
def measure_reliance(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    context: ContextSettings,
    count: int,
    seed: int,
) -> None:
    """Answer some of a hospital's test cases with its adapter, unchanged and with each perturbation of the prompt.

    In `predictions.parquet`, `configuration` is the perturbation's name.
    """
    from tasks.answer.perturbed_answers import answer_perturbed
    from tasks.cases.sample import sample
    from tasks.engine.hospital import open_hospital

    hospital_data = open_hospital(hospital)
    test = sample([case for case in hospital_data.cases if case.split == "test"], count, seed)
    images = hospital.cases.folder / "images.parquet"
    rows = answer_perturbed(
        hospital_data, hospital.name, images, test, hospital.adapter.folder, model, lora, answering, context, seed
    )
    with folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, rows)
