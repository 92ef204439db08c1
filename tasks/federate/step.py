"""The federate steps: hospitals train from the global adapter; the coordinator averages; hospitals validate."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import StudyError
from tasks.records import Update
from tasks.records.federation import HospitalRefs
from tasks.settings import FederationSettings, LoraSettings, ModelChoice, ShownSettings
from tasks.store import Ref, derived_seed
from tasks.store.stage import Folder, stage

if TYPE_CHECKING:
    import torch

FUSION = "fusion.safetensors"
"""As retrieval names the fusion's tensors."""


@stage(
    "update",
    area="shared",
    title="train {hospital.name} round {round_number}",
    leaves=("tensors", "counts", "losses"),
)
def train_hospital(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    shown: ShownSettings,
    round_number: int,
    seed: int,
) -> None:
    """One hospital's round: from the global adapter to its update, tensors and counts."""
    from tasks.cases.holdout import split_holdout
    from tasks.engine.adapter import adapter_files, load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.engine.train import train

    own = open_hospital(hospital)
    training, _ = split_holdout(own.cases, federation.holdout, seed)
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(hospital.adapter.folder))
        loss, steps = train(
            engine,
            own.features,
            own.examples(engine.base, training, shown),
            epochs=federation.local_epochs,
            batch_size=federation.batch_size,
            tokens=federation.tokens_per_pass,
            learning_rate=federation.learning_rate,
            seed=derived_seed(seed, round_number, hospital.name),
            title=f"round {round_number} {hospital.name}",
        )
        files = adapter_files(engine.read(), engine.config, model.name)
    _write_update(folder, "", files, Update(hospital.name, round_number, len(training), loss, steps))


def _write_update(folder: Folder, place: str, files: Mapping[str, bytes], update: Update) -> None:
    """The files of an adapter and what is told beside it, in the place within the folder (`""` or `name/`)."""
    for name, data in files.items():
        folder.write(f"{place}{name}", data)
    # JSON has no NaN; an update that diverged is told by its tensors, when the coordinator screens them.
    told = asdict(update) | {"loss": update.loss if math.isfinite(update.loss) else None}
    folder.write_json(f"{place}update.json", told)


@stage(
    "updates",
    area="shared",
    title="train all, round {round_number}",
    leaves=("tensors", "counts", "losses"),
)
def train_together(
    folder: Folder,
    hospitals: list[HospitalRefs],
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    shown: ShownSettings,
    round_number: int,
    seed: int,
) -> None:
    """All hospitals' rounds in one pass over the base, each hospital's update in a folder of its name.

    They start from one and the same adapter, that of the first.
    """
    from tasks.cases.holdout import split_holdout
    from tasks.engine.adapter import adapter_files, load_state
    from tasks.engine.fast.stacked import Client, train_stacked
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine

    owned = [open_hospital(each) for each in hospitals]
    training = [split_holdout(each.cases, federation.holdout, seed)[0] for each in owned]
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(hospitals[0].adapter.folder))
        trained = train_stacked(
            engine,
            [
                Client(
                    own.features, own.examples(engine.base, chosen, shown), derived_seed(seed, round_number, each.name)
                )
                for each, own, chosen in zip(hospitals, owned, training, strict=True)
            ],
            epochs=federation.local_epochs,
            batch_size=federation.batch_size,
            tokens=federation.tokens_per_pass,
            learning_rate=federation.learning_rate,
            title=f"round {round_number}",
        )
        for name, chosen, each in zip([each.name for each in hospitals], training, trained, strict=True):
            files = adapter_files(each.state, engine.config, model.name)
            _write_update(folder, f"{name}/", files, Update(name, round_number, len(chosen), each.loss, each.steps))


@stage("update", area="shared", title="update {hospital} round {round_number}", leaves=("tensors", "counts", "losses"))
def take_update(folder: Folder, hospital: str, together: Ref, round_number: int) -> None:
    """One hospital's update out of those that were trained together, in the folder that it has when trained alone."""
    for path in sorted((together.folder / hospital).iterdir()):
        folder.write(path.name, path.read_bytes())


@stage("adapter", area="shared", title="average round {round_number}", leaves=("tensors", "counts", "losses"))
def average(folder: Folder, updates: list[Ref], round_number: int) -> None:
    """The next global adapter: the sample-weighted mean of the finite updates."""
    from safetensors.torch import save

    from tasks.engine.adapter import CONFIG, WEIGHTS, load_state

    state, told = _mean(updates, load_state, round_number)
    folder.write(WEIGHTS, save(state, {"format": "pt"}))
    folder.write(CONFIG, (updates[0].folder / CONFIG).read_bytes())
    folder.write_json("round.json", told)


@stage("fusion", area="shared", title="average fusion round {round_number}", leaves=("tensors", "counts", "losses"))
def average_fusion(folder: Folder, updates: list[Ref], round_number: int) -> None:
    """The next global gated fusion of images and questions: the sample-weighted mean of the finite updates."""
    from safetensors.torch import load_file, save

    state, told = _mean(updates, lambda place: load_file(place / FUSION), round_number)
    folder.write(FUSION, save(state))
    folder.write_json("round.json", told)


def _mean(
    updates: Sequence[Ref], read: Callable[[Path], Mapping[str, "torch.Tensor"]], round_number: int
) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """FedAvg of the finite updates, its tensors by name, and what is told of the round."""
    from tasks.federate.aggregate import fedavg, screen

    sent = [Update(**json.loads((ref.folder / "update.json").read_text())) for ref in updates]
    states = {update.hospital: read(ref.folder) for update, ref in zip(sent, updates, strict=True)}
    finite = screen(states)
    used = [update for update in sent if update.hospital in finite]
    mean = fedavg([states[update.hospital] for update in used], [update.samples for update in used])
    samples = sum(update.samples for update in used)
    told = {
        "round": round_number,
        "train_loss": sum(update.samples * update.loss for update in used) / samples,
        "samples": {update.hospital: update.samples for update in sent},
        "screened_out": sorted(set(states) - set(finite)),
    }
    return dict(sorted(mean.items())), told


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
    shown: ShownSettings,
    round_number: int,
    seed: int,
    min_cell: int,
) -> None:
    """The global adapter's loss on a hospital's held-out training cases; no loss of fewer than `min_cell` is told."""
    from tasks.cases.holdout import split_holdout
    from tasks.cases.small_groups import is_small
    from tasks.engine.adapter import load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.engine.train import mean_loss

    own = open_hospital(hospital)
    _, held_out = split_holdout(own.cases, federation.holdout, seed)
    if is_small(len(held_out), min_cell):
        held_out = []
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(hospital.adapter.folder))
        examples = own.examples(engine.base, held_out, shown)
        loss, tokens = mean_loss(engine, own.features, examples, federation.tokens_per_pass)
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
    shown: ShownSettings,
    seed: int,
) -> None:
    """The largest memory of a process that trains one hospital for one pass, in bytes: `footprint.json`."""
    import subprocess
    import sys

    import tasks.federate.footprint as measured

    settings = {"hospital": hospital, "model": model, "lora": lora, "federation": federation, "shown": shown}
    told = subprocess.run(
        [sys.executable, "-m", measured.__name__],
        input=json.dumps({name: each.model_dump(mode="json") for name, each in settings.items()} | {"seed": seed}),
        capture_output=True,
        text=True,
    )
    if told.returncode:
        reason = (told.stderr.strip().split("\n") or [""])[-1]
        raise StudyError(f"Could not measure the memory of training at {hospital.name}: {reason}.")
    folder.write_json("footprint.json", {"hospital": hospital.name} | json.loads(told.stdout))


@stage("adapter", area="shared", title="initial adapter", leaves=())
def initial_adapter(folder: Folder, model: ModelChoice, lora: LoraSettings, seed: int) -> None:
    """The adapter that every hospital starts from; it leaves the base's answers unchanged."""
    from tasks.engine.adapter import adapter_files
    from tasks.engine.shared import shared_engine
    from tasks.store import derived_seed

    with shared_engine(model, lora) as engine:
        files = adapter_files(engine.initial_state(derived_seed(seed, "adapter")), engine.config, model.name)
    for name, data in files.items():
        folder.write(name, data)
