"""The federate stages: hospitals train, the server aggregates their updates, hospitals validate the result."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks.errors import StudyError
from tasks.records import UpdateCounts
from tasks.records.federation import HospitalRefs, write_counts
from tasks.settings import ContextSettings, FederationSettings, LocalRule, LoraSettings, ModelChoice, StrategySettings
from tasks.store import Ref, derived_seed
from tasks.store.stage import Folder, Leaving, stage

SENT: tuple[Leaving, ...] = ("tensors", "counts", "losses")
"""What an update reveals about a hospital, and so what anything aggregated from updates reveals."""


@stage(
    "update",
    area="shared",
    title="train {hospital.name} round {round_number}",
    leaves=SENT,
)
def train_hospital(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    local: LocalRule,
    round_number: int,
    seed: int,
) -> None:
    """Train one hospital for one round, from its adapter; write its update: tensors and counts.

    With a privacy budget it trains with noise, which follows from the hospital's secret and this folder's key.
    """
    from tasks.cases.holdout import split_holdout
    from tasks.engine.adapter import adapter_files, load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.engine.train import train
    from tasks.federate.local import correction
    from tasks.federate.private import train_within_budget

    hospital_data = open_hospital(hospital)
    training, _ = split_holdout(hospital_data.cases, federation.holdout, seed)
    start = load_state(hospital.adapter.folder)
    with shared_engine(model, lora) as engine:
        engine.switch(start)
        how: dict[str, Any] = {
            "tokens": federation.tokens_per_pass,
            "learning_rate": federation.learning_rate,
            "seed": derived_seed(seed, round_number, hospital.name),
            "correct": correction(local, start),
            "title": f"round {round_number} {hospital.name}",
        }
        if hospital.budget:
            loss, steps = train_within_budget(engine, hospital_data, training, context, hospital, folder.key, how)
        else:
            loss, steps = train(
                engine,
                hospital_data.seen_by(engine),
                hospital_data.examples(engine.base, training, context),
                epochs=federation.local_epochs,
                batch_size=federation.batch_size,
                **how,
            )
        files = adapter_files(engine.read(), engine.config, model.name)
    _write_update(folder, "", files, UpdateCounts(hospital.name, round_number, len(training), loss, steps))


def _write_update(folder: Folder, place: str, files: Mapping[str, bytes], counts: UpdateCounts) -> None:
    """Write the files of an adapter and its counts, under the prefix `place` of the folder (`""` or `name/`)."""
    for name, data in files.items():
        folder.write(f"{place}{name}", data)
    write_counts(folder, place, counts)


@stage("privacy", area="shared", title="privacy budget of {hospital}", leaves=("counts",))
def plan_privacy(folder: Folder, hospital: str, cases: Ref, federation: FederationSettings, seed: int) -> None:
    """Find the noise that a hospital trains with, and for how many rounds it may: `privacy.json`."""
    from tasks.cases.holdout import split_holdout
    from tasks.privacy.budget import FILE, budget_of, to_json
    from tasks.privacy.units import units_of
    from tasks.records import Case, read_table

    training, _ = split_holdout(read_table(cases.folder / "cases.parquet", Case), federation.holdout, seed)
    units = units_of(training, federation.privacy.unit)
    folder.write_json(FILE, to_json(budget_of(hospital, len(units), federation)))


@stage("privacy", area="shared", title="privacy budget of the coordinator", leaves=())
def plan_server_privacy(folder: Folder, hospitals: int, federation: FederationSettings) -> None:
    """Find the noise that the server adds to hide any one hospital, and for how many rounds: `privacy.json`."""
    from tasks.privacy.budget import FILE, budget_of, to_json
    from tasks.privacy.secret import COORDINATOR

    folder.write_json(FILE, to_json(budget_of(COORDINATOR, hospitals, federation)))


@stage("privacy-spent", area="shared", title="privacy spent by {hospital}", leaves=("counts",))
def count_privacy(folder: Folder, hospital: str, budget: Ref, rounds: int) -> None:
    """What a hospital's rounds cost: its budget with `spent`, epsilon after them."""
    from tasks.privacy.budget import FILE, read_budget, to_json

    found = read_budget(budget.folder)
    folder.write_json(FILE, to_json(found) | {"rounds": rounds, "epsilon": found.spent(rounds)})


@stage(
    "updates",
    area="shared",
    title="train all, round {round_number}",
    leaves=SENT,
)
def train_together(
    folder: Folder,
    hospitals: list[HospitalRefs],
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    local: LocalRule,
    round_number: int,
    seed: int,
) -> None:
    """Train all hospitals for one round, batched over one base; each hospital's update is in a folder of its name.

    All hospitals start from the same adapter, that of the first hospital.
    """
    from tasks.cases.holdout import split_holdout
    from tasks.engine.adapter import adapter_files, load_state
    from tasks.engine.fast.stacked import TrainingHospital, train_stacked
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.federate.local import correction

    opened = [open_hospital(each) for each in hospitals]
    training = [split_holdout(each.cases, federation.holdout, seed)[0] for each in opened]
    start = load_state(hospitals[0].adapter.folder)
    with shared_engine(model, lora) as engine:
        engine.switch(start)
        trained = train_stacked(
            engine,
            [
                TrainingHospital(
                    data.features,
                    data.examples(engine.base, chosen, context),
                    derived_seed(seed, round_number, each.name),
                )
                for each, data, chosen in zip(hospitals, opened, training, strict=True)
            ],
            epochs=federation.local_epochs,
            batch_size=federation.batch_size,
            tokens=federation.tokens_per_pass,
            learning_rate=federation.learning_rate,
            correct=correction(local, start),
            title=f"round {round_number}",
        )
        for name, chosen, each in zip([each.name for each in hospitals], training, trained, strict=True):
            files = adapter_files(each.state, engine.config, model.name)
            _write_update(
                folder, f"{name}/", files, UpdateCounts(name, round_number, len(chosen), each.loss, each.steps)
            )


@stage("update", area="shared", title="update {hospital} round {round_number}", leaves=SENT)
def take_update(folder: Folder, hospital: str, together: Ref, round_number: int) -> None:
    """Copy one hospital's update out of the batched ones, into the same folder as if it had trained alone."""
    for path in sorted((together.folder / hospital).iterdir()):
        folder.write(path.name, path.read_bytes())


@stage("secure-mean", area="shared", title="secure sum round {round_number}", leaves=SENT)
def sum_in_secret(folder: Folder, updates: list[Ref], round_number: int) -> None:
    """Mask each hospital's update, add them up, and write their mean as one update of all hospitals together."""
    from safetensors.torch import save

    from tasks.engine.adapter import CONFIG, WEIGHTS, load_state
    from tasks.federate.masked import masked_mean
    from tasks.records.federation import read_counts

    counts = [read_counts(ref.folder) for ref in updates]
    mean, together = masked_mean([load_state(ref.folder) for ref in updates], counts)
    files = {WEIGHTS: save(mean, {"format": "pt"}), CONFIG: (updates[0].folder / CONFIG).read_bytes()}
    _write_update(folder, "", files, together)


STRATEGY = "tasks.federate.strategies.{strategy.aggregation}"
"""The strategy module that an aggregation runs. Only this one counts in its cache key."""


@stage("adapter", area="shared", title="aggregate round {round_number}", chosen=(STRATEGY,), leaves=SENT)
def aggregate(folder: Folder, strategy: StrategySettings, state: Ref, updates: list[Ref], round_number: int) -> None:
    """Compute the server's next state: the next global adapter, and any other tensors that the strategy keeps.

    `state` is the state of the previous round, or the initial adapter.
    """
    from tasks.engine.adapter import CONFIG

    kept = _aggregate(folder, "adapter", strategy, state, updates, round_number)
    if "adapter" in kept:
        folder.write(CONFIG, (updates[0].folder / CONFIG).read_bytes())


@stage("fusion", area="shared", title="aggregate fusion round {round_number}", chosen=(STRATEGY,), leaves=SENT)
def aggregate_fusion(
    folder: Folder, strategy: StrategySettings, state: Ref, updates: list[Ref], round_number: int
) -> None:
    """Compute the server's next state of the gated fusion of images and questions."""
    _aggregate(folder, "fusion", strategy, state, updates, round_number)


def _aggregate(
    folder: Folder, group: str, settings: StrategySettings, state: Ref, updates: Sequence[Ref], round_number: int
) -> Collection[str]:
    """Aggregate one group of the updates' tensors and write the result; return the names of the groups written."""
    from tasks.federate.screen import screen
    from tasks.federate.state import read_state, read_update, write_state
    from tasks.federate.strategies.strategy import choose

    strategy = choose(settings)
    sent = [read_update(ref.folder, [group] if strategy.needs else []) for ref in updates]
    used = screen(sent)
    kept = strategy.aggregate(read_state(state.folder), used)
    write_state(folder, kept)
    samples = sum(update.samples for update in used)
    summary = {
        "round": round_number,
        "train_loss": sum(update.samples * update.loss for update in used) / samples,
        "samples": {update.hospital: update.samples for update in sent},
        "screened_out": sorted({update.hospital for update in sent} - {update.hospital for update in used}),
    }
    folder.write_json("round.json", summary)
    return kept.groups.keys()


@stage(
    "validation",
    area="shared",
    title="validate {hospital.name} round {round_number}",
    leaves=("losses", "counts"),
)
def validate_hospital(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    round_number: int,
    seed: int,
    min_cell: int,
) -> None:
    """The loss of a hospital's adapter on its held-out cases; none is computed on fewer than `min_cell` cases."""
    from tasks.cases.holdout import split_holdout
    from tasks.cases.small_groups import is_small
    from tasks.engine.adapter import load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.engine.train import mean_loss

    hospital_data = open_hospital(hospital)
    _, held_out = split_holdout(hospital_data.cases, federation.holdout, seed)
    if is_small(len(held_out), min_cell):
        held_out = []
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(hospital.adapter.folder))
        examples = hospital_data.examples(engine.base, held_out, context)
        loss, tokens = mean_loss(engine, hospital_data.seen_by(engine), examples, federation.tokens_per_pass)
    if not math.isfinite(loss):
        raise StudyError(
            f"Expected a finite loss of round {round_number}'s adapter at {hospital.name}, found {loss}: "
            "lower federation.learning_rate."
        )
    folder.write_json(
        "validation.json", {"hospital": hospital.name, "round": round_number, "loss": loss, "tokens": tokens}
    )


@stage(
    "footprint",
    area="shared",
    title="memory {hospital.name}",
    leaves=("memory",),
)
def measure_memory(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    seed: int,
) -> None:
    """Measure the peak memory of a process that trains one hospital for one epoch, in bytes: `footprint.json`."""
    import subprocess
    import sys

    import tasks.federate.footprint as measured

    settings = {"hospital": hospital, "model": model, "lora": lora, "federation": federation, "context": context}
    process = subprocess.run(
        [sys.executable, "-m", measured.__name__],
        input=json.dumps({name: each.model_dump(mode="json") for name, each in settings.items()} | {"seed": seed}),
        capture_output=True,
        text=True,
    )
    if process.returncode:
        reason = (process.stderr.strip().split("\n") or [""])[-1]
        raise StudyError(f"Could not measure the memory of training at {hospital.name}: {reason}.")
    folder.write_json("footprint.json", {"hospital": hospital.name} | json.loads(process.stdout))


@stage("adapter", area="shared", title="initial adapter", leaves=())
def initial_adapter(folder: Folder, model: ModelChoice, lora: LoraSettings, seed: int) -> None:
    """Make the adapter that every hospital starts from; it leaves the base's answers unchanged."""
    from tasks.engine.adapter import adapter_files
    from tasks.engine.shared import shared_engine
    from tasks.store import derived_seed

    with shared_engine(model, lora) as engine:
        files = adapter_files(engine.initial_state(derived_seed(seed, "adapter")), engine.config, model.name)
    for name, data in files.items():
        folder.write(name, data)
