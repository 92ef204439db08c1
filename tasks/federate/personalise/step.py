"""The stages of personal adapters: trained beside the one for all, or mixed with it; they stay at their hospital."""

from tasks.records.federation import RESIDUAL, HospitalRefs, group_file
from tasks.settings import ContextSettings, FederationSettings, LocalRule, LoraSettings, ModelChoice
from tasks.store import Ref
from tasks.store.stage import Folder, stage


@stage("personal", area="hospitals/{hospital.name}", title="personalise {hospital.name} round {round_number}")
def train_personal(
    folder: Folder,
    hospital: HospitalRefs,
    towards: Ref,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    local: LocalRule,
    round_number: int,
    seed: int,
) -> None:
    """Train a hospital's personal adapter for one round; `local` may pull it towards another adapter."""
    from tasks.federate.training import train_into

    train_into(folder, hospital, model, lora, federation, context, local, round_number, seed, towards)
    residual = hospital.adapter.folder / group_file(RESIDUAL)
    if residual.exists():  # trained beside it, so it is a part of the personal adapter too
        folder.write(residual.name, residual.read_bytes())


@stage("mixture", area="hospitals/{hospital.name}", title="mix adapters {hospital.name}")
def mix_adapters(
    folder: Folder,
    hospital: HospitalRefs,
    for_all: Ref,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    seed: int,
) -> None:
    """Mix a hospital's own adapter with the one for all, by the weight that has the smallest loss on held-out cases.

    Of equal losses the smallest weight is taken: without held-out cases the mixture is the adapter for all.
    """
    from safetensors.torch import save

    from tasks.cases.holdout import split_holdout
    from tasks.engine.adapter import adapter_files, load_state
    from tasks.engine.hospital import open_hospital
    from tasks.engine.residual import MARK, parted
    from tasks.engine.shared import shared_engine
    from tasks.engine.train import mean_loss
    from tasks.federate.personalise.mixture import WEIGHTS, mixed

    hospital_data = open_hospital(hospital)
    _, held_out = split_holdout(hospital_data.cases, federation.holdout, federation.held_out_by(seed))
    own, other = load_state(hospital.adapter.folder), load_state(for_all.folder)
    with shared_engine(model, lora) as engine:
        seen, examples = hospital_data.seen_by(engine), hospital_data.examples(engine.base, held_out, context)
        losses = {}
        for weight in WEIGHTS:
            engine.switch(mixed(own, other, weight))
            losses[weight], _ = mean_loss(engine, seen, examples, federation.tokens_per_pass)
        best = min(losses, key=lambda weight: losses[weight])
        adapter, residual = parted(mixed(own, other, best))
        files = adapter_files(adapter, engine.config, model.name)
    for name, data in files.items():
        folder.write(name, data)
    named = {name.replace(MARK, ".lora_"): tensor for name, tensor in sorted(residual.items())}
    folder.write(group_file(RESIDUAL), save(named, {"format": "pt"}))
    folder.write_json("mixture.json", {"weight": best, "losses": [losses[weight] for weight in WEIGHTS]})
