"""The federate stages: hospitals train, the server aggregates their updates, hospitals validate the result."""

import json
import math
from functools import partial

from tasks.errors import StudyError
from tasks.records import UpdateCounts
from tasks.records.federation import CONFIG_FILE, CONTROL_FILE, TOGETHER, HospitalRefs
from tasks.records.shared_documents import FootprintDocument, ValidationDocument
from tasks.records.shared_files import FUSION_STATE, START, STATE, UPDATE
from tasks.settings import (
    ContextSettings,
    FederationSettings,
    LocalRule,
    LocalSteps,
    LoraSettings,
    ModelChoice,
    StrategySettings,
)
from tasks.store import Ref, derived_seed
from tasks.store.leaving import Document
from tasks.store.stage import Folder, Leaving, stage

SENT: tuple[Leaving, ...] = ("tensors", "counts", "losses")
"""What an update reveals about a hospital, and so what anything aggregated from updates reveals."""


@stage(
    "update",
    area="shared",
    title="train {hospital.name} round {round_number}",
    leaves=SENT,
    writes=UPDATE,
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
    from tasks.federate.training import train_into

    train_into(folder, hospital, model, lora, federation, context, local, round_number, seed)


@stage("trained", area="hospitals/{hospital.name}", title="train {hospital.name} round {round_number}")
def train_at_home(
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
    """Train one hospital for one round as `train_hospital` does; what is trained stays there."""
    from tasks.federate.training import train_into

    train_into(folder, hospital, model, lora, federation, context, local, round_number, seed)


@stage("update", area="shared", title="send {hospital} round {round_number}", leaves=SENT, writes=UPDATE)
def send_update(folder: Folder, hospital: str, trained: Ref, keeps: tuple[str, ...], round_number: int) -> None:
    """Copy what a hospital trained into an update, without the tensors that it keeps."""
    from safetensors.torch import save

    from tasks.engine.adapter import CONFIG, WEIGHTS, load_state
    from tasks.federate.keeping import stays

    tensors = {name: each for name, each in load_state(trained.folder).items() if not stays(name, keeps)}
    folder.write(WEIGHTS, save(tensors, {"format": "pt"}))
    for name in (CONFIG, "update.json"):
        folder.write(name, (trained.folder / name).read_bytes())


@stage("joined", area="hospitals/{hospital}", title="join {hospital} round {round_number}")
def join_adapter(folder: Folder, hospital: str, state: Ref, trained: Ref, round_number: int) -> None:
    """Make a hospital's adapter of the server's tensors and, where the server has none, of its own."""
    from safetensors.torch import save

    from tasks.engine.adapter import CONFIG, WEIGHTS, load_state

    joined = load_state(trained.folder) | load_state(state.folder)
    folder.write(WEIGHTS, save(dict(sorted(joined.items())), {"format": "pt"}))
    folder.write(CONFIG, (trained.folder / CONFIG).read_bytes())


@stage(
    "updates",
    area="shared",
    title="train all, round {round_number}",
    leaves=SENT,
    writes={f"*/{name}": content for name, content in UPDATE.items()},
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
    from tasks.federate.local import correction, sent
    from tasks.federate.training import write_update

    opened = [open_hospital(each) for each in hospitals]
    training = [split_holdout(each.cases, federation.holdout, federation.held_out_by(seed))[0] for each in opened]
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
            frozen=local.frozen,
            title=f"round {round_number}",
        )
        for name, chosen, each in zip([each.name for each in hospitals], training, trained, strict=True):
            files = adapter_files(sent(local, each.state), engine.config, model.name)
            write_update(
                folder,
                f"{name}/",
                files,
                UpdateCounts(name, round_number, len(chosen), each.loss, each.steps, model.content),
            )


@stage("update", area="shared", title="update {hospital} round {round_number}", leaves=SENT, writes=UPDATE)
def take_update(folder: Folder, hospital: str, together: Ref, round_number: int) -> None:
    """Copy one hospital's update out of the batched ones, into the same folder as if it had trained alone."""
    for path in sorted((together.folder / hospital).iterdir()):
        folder.write(path.name, path.read_bytes())


@stage("control", area="hospitals/{hospital}", title="keep control {hospital}")
def keep_control(folder: Folder, hospital: str, before: Ref | None, update: Ref) -> None:
    """A hospital's control variate after a round: the former one, plus the change that it sent."""
    from safetensors.torch import save

    from tasks.federate.control import after

    control = after(before.folder if before else None, update.folder)
    folder.write(CONTROL_FILE, save(dict(sorted(control.items())), {"format": "pt"}))


STRATEGY = "tasks.federate.strategies.{strategy.module}"
"""The strategy module that an aggregation runs. Only this one counts in its cache key."""
LORA_MEAN = "tasks.federate.lora_mean.{strategy.lora_mean_module}"
"""The module of the rule by which LoRA's factors are averaged."""


@stage(
    "adapter",
    area="shared",
    title="aggregate round {round_number}",
    chosen=(STRATEGY, LORA_MEAN),
    leaves=SENT,
    writes=STATE,
)
def aggregate(
    folder: Folder,
    strategy: StrategySettings,
    state: Ref,
    hospitals: list[str],
    updates: list[Ref],
    round_number: int,
    base: str,
    share: float,
    steps: LocalSteps | None,
    ranks: dict[str, int],
) -> None:
    """Compute the server's next state: the next global adapter, and any other tensors that the strategy keeps.

    `state` is the state of the previous round, or the initial adapter. `hospitals` sent the updates, in this order;
    `base` is the content of the base that they train on, and `share` that of the hospitals which these are.
    `ranks` are those agreed on, of hospitals whose adapter is of a lower rank; `steps` decide how many a
    hospital takes.
    """
    from tasks.federate.aggregation import aggregate_group
    from tasks.federate.lora_mean.lost import lost_shares
    from tasks.federate.lora_mean.rule import choose_rule

    sent = dict(zip(hospitals, updates, strict=True))
    rule = strategy.lora_mean if strategy.takes_mean else "factors"
    measure = partial(lost_shares, None if hospitals == [TOGETHER] else rule)
    chosen = choose_rule(strategy)
    kept = aggregate_group(
        folder, "adapter", chosen, strategy, state, sent, round_number, base, share, steps, measure, ranks
    )
    if "adapter" in kept:
        folder.write(CONFIG_FILE, (state.folder / CONFIG_FILE).read_bytes())


@stage(
    "fusion",
    area="shared",
    title="aggregate fusion round {round_number}",
    chosen=(STRATEGY,),
    leaves=SENT,
    writes=FUSION_STATE,
)
def aggregate_fusion(
    folder: Folder,
    strategy: StrategySettings,
    state: Ref,
    hospitals: list[str],
    updates: list[Ref],
    round_number: int,
) -> None:
    """Compute the server's next state of the gated fusion of images and questions."""
    from tasks.federate.aggregation import aggregate_group
    from tasks.federate.strategies.strategy import choose

    sent = dict(zip(hospitals, updates, strict=True))
    aggregate_group(folder, "fusion", choose(strategy), strategy, state, sent, round_number, "", 1, steps=None)


@stage(
    "validation",
    area="shared",
    title="validate {hospital.name} round {round_number}",
    leaves=("losses", "counts"),
    writes={"validation.json": Document(ValidationDocument)},
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
    _, held_out = split_holdout(hospital_data.cases, federation.holdout, federation.held_out_by(seed))
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
    writes={"footprint.json": Document(FootprintDocument)},
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


@stage("adapter", area="shared", title="initial adapter", leaves=(), writes=START)
def initial_adapter(folder: Folder, model: ModelChoice, lora: LoraSettings, seed: int) -> None:
    """Make the adapter that every hospital starts from; it leaves the base's answers unchanged."""
    from tasks.engine.adapter import adapter_files
    from tasks.engine.shared import shared_engine
    from tasks.store import derived_seed

    with shared_engine(model, lora) as engine:
        files = adapter_files(engine.initial_state(derived_seed(seed, "adapter")), engine.config, model.name)
    for name, data in files.items():
        folder.write(name, data)


@stage("adapter", area="shared", title="start adapter", leaves=("tensors",), writes=START)
def take_adapter(
    folder: Folder, model: ModelChoice, lora: LoraSettings, content: str, former: Ref | None = None, place: str = ""
) -> None:
    """Take an adapter that was trained before as the one that every hospital starts from.

    It is in the folder `former` of an earlier run, or in the folder `place`, from outside. `content` is the digest of
    its tensors' file. Raises StudyError if it is not of this model and these settings.
    """
    from pathlib import Path

    from tasks.engine.adapter import WEIGHTS, adapter_files
    from tasks.engine.shared import shared_engine
    from tasks.federate.start import admit_adapter
    from tasks.store import file_digest

    source = former.folder if former else Path(place)
    with shared_engine(model, lora) as engine:
        state = admit_adapter(source, engine.initial_state(0), engine.config.to_dict())
        files = adapter_files(state, engine.config, model.name)
    if file_digest(source / WEIGHTS) != content:
        raise StudyError(f"Expected {source} to stay as it was, found that it has changed: run it again.")
    for name, data in files.items():
        folder.write(name, data)
