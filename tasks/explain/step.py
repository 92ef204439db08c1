"""The explain stages: failure modes and attributions of some answers, and the counts and means that are shared."""

from typing import Any

from tasks.records import FailureModes, Prediction, Saliency, Share, read_table, write_table
from tasks.records.federation import HospitalRefs
from tasks.records.shared_documents import FailuresDocument, SharesDocument
from tasks.settings import AnsweringSettings, ContextSettings, LoraSettings, ModelChoice
from tasks.store import Ref
from tasks.store.leaving import Document
from tasks.store.stage import Folder, stage


@stage(
    "failures",
    area="hospitals/{hospital.name}",
    title="failures {hospital.name}",
)
def find_failures(
    folder: Folder,
    hospital: HospitalRefs,
    reliance: Ref,
    model: ModelChoice,
    lora: LoraSettings,
    context: ContextSettings,
    tokens: int,
    count: int,
    seed: int,
) -> None:
    """Find failure modes in some of the answers of the stage `reliance`: `failures.parquet`.

    The file stays at the hospital: its case ids and modes are for the hospital's page.
    """
    from tasks.cases.sample import sample
    from tasks.engine.adapter import load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.prompt import build_queries
    from tasks.engine.shared import shared_engine
    from tasks.explain.examination import answers_by_case, examine, open_examined
    from tasks.explain.failures import judge_all, records

    hospital_data = open_hospital(hospital)
    answers = answers_by_case(read_table(reliance.folder / "predictions.parquet", Prediction))
    test = sample([case for case in hospital_data.cases if case.id in answers], count, seed)
    queries = build_queries(test, hospital_data.prompts(test, context), hospital_data.cases, hospital_data.neighbours)
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(hospital.adapter.folder))
        seen = open_examined(engine, hospital_data, hospital.cases.folder, queries, context, tokens)
        found = [examine(seen, each, answers[each.case.id]) for each in queries]
    with folder.open("failures.parquet") as sink:
        write_table(sink, FailureModes, records(found, judge_all(found)))


@stage(
    "failure-counts",
    area="shared",
    title="count failures {hospital}",
    leaves=("counts",),
    writes={"failures.json": Document(FailuresDocument)},
)
def count_failures(folder: Folder, hospital: str, failures: Ref, min_cell: int) -> None:
    """Count a hospital's examined answers by failure mode; it shares only these counts.

    Counts below `min_cell` are withheld.
    """
    from tasks.explain.failures import count_modes

    rows = read_table(failures.folder / "failures.parquet", FailureModes)
    folder.write_json("failures.json", {"hospital": hospital, **count_modes(rows, min_cell)})


@stage(
    "saliency",
    area="hospitals/{hospital.name}",
    title="saliency {hospital.name}",
)
def explain_some(
    folder: Folder,
    hospital: HospitalRefs,
    predictions: Ref,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    context: ContextSettings,
    counts: list[int],
    seed: int,
) -> None:
    """Explain some of the adapter's answers: maps in `saliency.parquet`, parts' shares in `shares.parquet`."""
    from tasks.engine.hospital import open_hospital
    from tasks.explain.hospital_attributions import draw, explain_answers

    hospital_data = open_hospital(hospital)
    answers = read_table(predictions.folder / "predictions.parquet", Prediction)
    chosen, images = draw(hospital_data.cases, counts, seed), hospital.cases.folder / "images.parquet"
    tokens = answering.tokens_per_pass
    found = explain_answers(
        hospital_data, images, chosen, answers, hospital.adapter.folder, model, lora, context, tokens
    )
    with folder.open("saliency.parquet") as sink:
        write_table(sink, Saliency, [row for each in found for row in each.maps])
    with folder.open("shares.parquet") as sink:
        write_table(sink, Share, [row for each in found for row in each.shares])


@stage(
    "shares",
    area="shared",
    title="shares {hospital}",
    leaves=("scores", "counts"),
    writes={"shares.json": Document(SharesDocument)},
)
def share_means(folder: Folder, hospital: str, saliency: Ref, min_cell: int) -> None:
    """Average the shares of the prompt's parts over a hospital's explained answers; it shares only these means.

    With fewer than `min_cell` explained answers, all is withheld.
    """
    from tasks.cases.small_groups import is_small
    from tasks.explain.shares import mean_shares

    means = mean_shares(read_table(saliency.folder / "shares.parquet", Share))
    withheld: dict[str, Any] = {"n": None, "methods": {}}
    folder.write_json("shares.json", {"hospital": hospital, **(withheld if is_small(means["n"], min_cell) else means)})
