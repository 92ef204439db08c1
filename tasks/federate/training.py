"""One hospital's training for one round, as the stages that train do it."""

from collections.abc import Mapping
from typing import Any

from tasks.records import UpdateCounts
from tasks.records.federation import CONTROL_FILE, HospitalRefs, write_counts
from tasks.settings import ContextSettings, FederationSettings, LocalRule, LoraSettings, ModelChoice
from tasks.store import Folder, Ref, derived_seed
from tasks.store.checkpoints import Checkpoint


def train_into(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    local: LocalRule,
    round_number: int,
    seed: int,
    towards: Ref | None = None,
) -> None:
    """Train one hospital for one round, from its adapter, into a folder: tensors and counts.

    Args:
        folder: where the update is written; its key is what noise follows from, with the hospital's secret.
        towards: the adapter that `local.proximal_mu` pulls towards, where it is not the round's start.
        The others are those of the stage `update`.
    """
    from safetensors.torch import save

    from tasks.cases.holdout import split_holdout
    from tasks.engine.adapter import adapter_files, load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.shared import shared_engine
    from tasks.engine.train import train
    from tasks.federate.control import controlled
    from tasks.federate.local import correction, sent
    from tasks.federate.lora_mean.ranks import cut, padded
    from tasks.federate.privacy.within_budget import train_within_budget

    hospital_data = open_hospital(hospital)
    training, _ = split_holdout(hospital_data.cases, federation.holdout, federation.held_out_by(seed))
    start = load_state(hospital.adapter.folder)
    if local.rank:
        start = {name: padded(name, tensor, lora.r) for name, tensor in cut(start, local.rank).items()}
    control = controlled(hospital, start) if local.control else None
    with shared_engine(model, lora) as engine:
        engine.switch(start)
        how: dict[str, Any] = {
            "tokens": federation.tokens_per_pass,
            "learning_rate": federation.learning_rate,
            "seed": derived_seed(seed, round_number, hospital.name),
            "correct": control or correction(local, load_state(towards.folder) if towards else start),
            "title": f"round {round_number} {hospital.name}",
            "checkpoint": Checkpoint(folder, f"hospitals/{hospital.name}"),
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
                by_image=federation.by_image,
                frozen=local.frozen,
                **how,
            )
        files = adapter_files(sent(local, engine.read()), engine.config, model.name, local.rank)
    if control:
        files[CONTROL_FILE] = save(control.change(), {"format": "pt"})
    counts = UpdateCounts(hospital.name, round_number, len(training), loss, steps, model.content)
    write_update(folder, "", files, counts)


def write_update(folder: Folder, place: str, files: Mapping[str, bytes], counts: UpdateCounts) -> None:
    """Write the files of an adapter and its counts, under the prefix `place` of the folder (`""` or `name/`)."""
    for name, data in files.items():
        folder.write(f"{place}{name}", data)
    write_counts(folder, place, counts)
