"""The personal adapters of a study: trained at each hospital beside the one for all, and kept there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect import unmapped

from flows.coordinator import Federated, holding, training_settings
from flows.mapped import all_alike, gather, gather_named
from tasks.errors import StudyError
from tasks.federate.keeping import stays
from tasks.federate.personalise.step import mix_adapters, train_personal
from tasks.federate.step import join_adapter
from tasks.records.federation import ADAPTER_FILE, HospitalRefs
from tasks.settings import LocalRule, ModelChoice, Study
from tasks.store import Ref


@dataclass(frozen=True)
class Personalised:
    """The hospitals with the adapter for all, and each one's personal adapter, if there are any."""

    hospitals: list[HospitalRefs]
    personal: list[Ref] = field(default_factory=list)


def check_personal_layers(study: Study, adapter: Ref) -> None:
    """Raises StudyError if `federation.personal_layers` names no part of the adapter, or leaves nothing to share."""
    from safetensors import safe_open

    layers = study.federation.personal_layers
    with safe_open(adapter.folder / ADAPTER_FILE, "np") as tensors:
        names = list(tensors.keys())
    unknown = [each for each in layers if not any(stays(name, (each,)) for name in names)]
    if unknown or (layers and all(stays(name, layers) for name in names)):
        found = f"{unknown[0]}, which is none" if unknown else "all of it"
        raise StudyError(
            f"Expected a part of the adapter in federation.personal_layers, found {found}: name parts of its tensors' "
            f"names, which are {names[0]} and others."
        )


def personalise(study: Study, model: ModelChoice, federated: Federated, initial: Ref) -> Personalised:
    """Each hospital's personal adapter, as `federation.personal` says.

    Args:
        federated: what the rounds have left.
        initial: the adapter that the first round started from.
    """
    kind = study.federation.personal
    hospitals = {each.name: each for each in federated.trained}
    if kind == "fedper":
        return _for_all_and_own(federated, initial)
    settings, own = training_settings(study, model), {name: each.adapter for name, each in hospitals.items()}
    if kind == "fine-tune":
        more = {"local_epochs": study.federation.personal_epochs}
        settings |= {"federation": study.federation.local.model_copy(update=more)}
        tuned = _train(hospitals, own, own, LocalRule(), study.federation.rounds + 1, settings)
        return Personalised(federated.trained, list(tuned.values()))
    pull = study.federation.personal_pull if kind == "ditto" else 0
    adapters, rule = dict.fromkeys(hospitals, initial), LocalRule(proximal_mu=pull)
    for number, (members, start) in enumerate(zip(federated.members, federated.starts, strict=True), start=1):
        if not members:  # a hospital on a machine of its own knows itself alone, and may have been no member
            continue
        held = {name: adapters[name] for name in members}
        towards = dict.fromkeys(held, start) if pull else held
        adapters |= _train(hospitals, held, towards, rule, number, settings)
    if kind == "mixture":
        both = {"hospital": holding(hospitals, adapters), "for_all": list(own.values())}
        return Personalised(federated.trained, gather(mix_adapters, list(hospitals), **both, **all_alike(settings)))
    return Personalised(federated.trained, list(adapters.values()))


def _for_all_and_own(federated: Federated, initial: Ref) -> Personalised:
    """What a newcomer would get, with initial weights in the layers that are not shared; and what each has (FedPer)."""
    names = [each.name for each in federated.trained]
    for_all = gather(
        join_adapter,
        names,
        hospital=names,
        state=unmapped(federated.state),
        trained=unmapped(initial),
        round_number=unmapped(len(federated.rows)),
    )
    hospitals = [each.given(adapter) for each, adapter in zip(federated.trained, for_all, strict=True)]
    return Personalised(hospitals, [each.adapter for each in federated.trained])


def _train(
    hospitals: Mapping[str, HospitalRefs],
    starts: Mapping[str, Ref],
    towards: Mapping[str, Ref],
    rule: LocalRule,
    number: int,
    settings: dict[str, Any],
) -> dict[str, Ref]:
    return gather_named(
        train_personal,
        list(starts),
        hospital=holding(hospitals, starts),
        towards=list(towards.values()),
        local=unmapped(rule),
        round_number=unmapped(number),
        **all_alike(settings),
    )
