"""The stages of contributions: each hospital measures every coalition's aggregate, the coordinator adds up."""

import json
import math
from dataclasses import asdict
from typing import Any

from tasks.errors import StudyError
from tasks.federate.step import LORA_MEAN, STRATEGY
from tasks.records import write_table
from tasks.records.contributions import CoalitionsDocument, Contribution, ContributionsDocument
from tasks.records.federation import HospitalRefs
from tasks.records.tables import schema
from tasks.settings import ContextSettings, FederationSettings, LocalSteps, LoraSettings, ModelChoice, StrategySettings
from tasks.store import Ref
from tasks.store.leaving import Document, Table
from tasks.store.stage import Folder, stage

FILE = "contributions.json"


@stage(
    "coalitions",
    area="shared",
    title="coalitions at {hospital.name}",
    chosen=(STRATEGY, LORA_MEAN),
    leaves=("losses", "counts"),
    writes={"coalitions.json": Document(CoalitionsDocument)},
)
def measure_coalitions(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    strategy: StrategySettings,
    steps: LocalSteps | None,
    state: Ref,
    senders: list[str],
    updates: list[Ref],
    round_number: int,
    orders: int,
    seed: int,
    min_cell: int,
) -> None:
    """The loss on a hospital's held-out cases of what each coalition's updates of a round make: `coalitions.json`.

    Nothing is trained. As in validation, none is computed on fewer than `min_cell` cases.
    """
    from tqdm import tqdm

    from tasks.cases.holdout import split_holdout
    from tasks.cases.small_groups import is_small
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.engine.train import mean_loss
    from tasks.federate.aggregation import admitted
    from tasks.federate.contributions import shapley
    from tasks.federate.contributions.coalitions import adapter_of
    from tasks.federate.lora_mean.rule import choose_rule

    rule, sent = choose_rule(strategy), dict(zip(senders, updates, strict=True))
    before, used, left_out = admitted(
        "adapter", rule, strategy, state, sent, round_number, model.content, steps, lora.ranks
    )
    groups = shapley.coalitions(shapley.orders([update.hospital for update in used], orders, seed))
    data = open_hospital(hospital)
    _, held_out = split_holdout(data.cases, federation.holdout, federation.held_out_by(seed))
    if is_small(len(held_out), min_cell):
        held_out = []
    losses, tokens = list[float](), 0
    with shared_engine(model, lora) as engine:
        examples = data.examples(engine.base, held_out, context)
        for group in tqdm(groups, desc=f"coalitions at {hospital.name}", leave=False, disable=None):
            engine.switch(adapter_of(rule, before, [update for update in used if update.hospital in group]))
            loss, tokens = mean_loss(engine, data.seen_by(engine), examples, federation.tokens_per_pass)
            losses.append(loss)
    if not all(map(math.isfinite, losses)):
        raise StudyError(
            f"Expected finite losses of round {round_number}'s updates at {hospital.name}, found others: "
            "lower federation.learning_rate."
        )
    folder.write_json(
        "coalitions.json",
        {
            "hospital": hospital.name,
            "round": round_number,
            "tokens": tokens,
            "samples": {update.hospital: update.samples for update in used},
            "left_out": left_out,
            "coalitions": [sorted(group) for group in groups],
            "losses": losses,
        },
    )


@stage(
    "contributions",
    area="shared",
    title="contributions",
    leaves=("losses", "counts"),
    writes={FILE: Document(ContributionsDocument), "contributions.parquet": Table(schema(Contribution))},
)
def add_contributions(folder: Folder, measured: list[Ref], orders: int, seed: int) -> None:
    """What each hospital brought, over the held-out cases of all: `contributions.json` and `contributions.parquet`."""
    from tasks.federate.contributions.coalitions import contributions

    found = [json.loads((ref.folder / "coalitions.json").read_text(encoding="utf-8")) for ref in measured]
    rows, about = contributions(found, orders, seed)
    document: dict[str, Any] = about | {"hospitals": [asdict(row) for row in rows], "left_out": found[0]["left_out"]}
    folder.write_json(FILE, document)
    with folder.open("contributions.parquet") as sink:
        write_table(sink, Contribution, rows)
