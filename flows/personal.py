"""The personal adapters of a study: trained at each hospital beside the one for all, and kept there."""

from collections.abc import Sequence
from typing import Any

from prefect import unmapped

from flows.coordinator import given, training_settings
from flows.runtimes.local import all_alike, gather
from tasks.federate.personalise.step import mix_adapters, train_personal
from tasks.records.federation import HospitalRefs
from tasks.settings import LocalRule, ModelChoice, Study
from tasks.store import Ref


def personalise(study: Study, model: ModelChoice, trained: Sequence[HospitalRefs], starts: Sequence[Ref]) -> list[Ref]:
    """Each hospital's personal adapter, as `federation.personal` says.

    Args:
        trained: the hospitals, each with its adapter after the last round.
        starts: the server's state before each round.
    """
    kind, rounds = study.federation.personal, study.federation.rounds
    settings = training_settings(study, model)
    own = [hospital.adapter for hospital in trained]
    if kind == "fine-tune":
        more = {"local_epochs": study.federation.personal_epochs}
        settings |= {"federation": study.federation.local.model_copy(update=more)}
        return _train(trained, own, own, LocalRule(), rounds + 1, settings)
    pull = study.federation.personal_pull if kind == "ditto" else 0
    adapters, rule = [starts[0]] * len(trained), LocalRule(proximal_mu=pull)
    for number, start in enumerate(starts, start=1):
        adapters = _train(trained, adapters, [start if pull else each for each in adapters], rule, number, settings)
    if kind == "ditto":
        return adapters
    mixing = mix_adapters.map(hospital=given(trained, adapters), for_all=own, **all_alike(settings))
    return gather(mixing, [hospital.name for hospital in trained])


def _train(
    hospitals: Sequence[HospitalRefs],
    starts: Sequence[Ref],
    towards: Sequence[Ref],
    rule: LocalRule,
    number: int,
    settings: dict[str, Any],
) -> list[Ref]:
    training = train_personal.map(
        hospital=given(hospitals, starts),
        towards=list(towards),
        local=unmapped(rule),
        round_number=unmapped(number),
        **all_alike(settings),
    )
    return gather(training, [hospital.name for hospital in hospitals])
