"""What a study does for privacy before its rounds begin, and what it has spent after them."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import unmapped

from flows.mapped import gather
from tasks.errors import StudyError
from tasks.federate.privacy.budget import Budget, read_budget, rounds_within
from tasks.federate.privacy.plan import Plan, Training, refusal
from tasks.federate.privacy.secret import COORDINATOR
from tasks.federate.privacy.step import count_privacy, plan_privacy, plan_server_privacy
from tasks.records.federation import ADAPTER_FILE, HospitalRefs
from tasks.settings import Study
from tasks.store import Ref
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")


def protect(
    study: Study, hospitals: list[HospitalRefs], joined: int | None = None
) -> tuple[Study, list[HospitalRefs], list[Ref]]:
    """A study as its privacy allows it.

    Returns the study, with fewer rounds where epsilon would be exceeded; the hospitals, with what each trains within;
    and all budgets: none without privacy, one of the coordinator where hospitals are hidden. Raises StudyError where
    noise is louder than anything that could be learned, with the figures, and where not even one round is possible.

    `joined` hospitals have noise that averages out, if there are others than these.
    """
    federation, names = study.federation, [each.name for each in hospitals]
    if federation.privacy.unit == "none":
        return study, hospitals, []
    if federation.privacy.unit == "hospital":
        refs = [plan_server_privacy(hospitals=len(hospitals), federation=federation)]
    else:
        cases = [each.cases for each in hospitals]
        common: dict[str, Any] = {"federation": unmapped(federation), "seed": unmapped(study.seed)}
        refs = gather(plan_privacy, names, hospital=names, cases=cases, **common)
    budgets = [read_budget(ref.folder) for ref in refs]
    rounds = rounds_within(budgets, federation.rounds, federation.privacy.epsilon)
    for budget in budgets:
        refuse_hopeless(study, budget, rounds, hospitals[0].adapter, joined or len(budgets))
    _tell(study, budgets, rounds)
    changes: dict[str, object] = {"rounds": rounds}
    if federation.privacy.unit == "hospital":
        changes["privacy"] = federation.privacy.model_copy(update={"sigma": budgets[0].sigma})
    else:
        hospitals = [each.model_copy(update={"budget": ref}) for each, ref in zip(hospitals, refs, strict=True)]
    return study.model_copy(update={"federation": federation.model_copy(update=changes)}), hospitals, refs


def refuse_hopeless(study: Study, budget: Budget, rounds: int, adapter: Ref, budgets: int) -> None:
    """Raise StudyError where a budget's noise is louder than anything that could be learned in these rounds.

    `adapter` is one of those that are trained; `budgets` have noise of their own, which averages out.
    """
    drawn = round(budget.rate * budget.units)
    joined = 1 if study.federation.strategy == "none" else budgets
    training = Training(budget.unit, budget.units, drawn, rounds * budget.steps, parameters_of(adapter), joined)
    found = Plan(training, budget.sigma, {budget.accountant: budget.spent(rounds)})
    if found.hopeless:
        raise StudyError(refusal(found, study.federation.privacy))


def parameters_of(adapter: Ref) -> int:
    """The numbers that an adapter has."""
    from safetensors import safe_open

    with safe_open(adapter.folder / ADAPTER_FILE, "np") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    return sum(map(math.prod, shapes))


def _tell(study: Study, budgets: Sequence[Budget], rounds: int) -> None:
    asked, least = study.federation.rounds, min(budgets, key=lambda each: each.rounds)
    privacy = study.federation.privacy
    stops = f", {rounds} of {asked} asked for, since {least.hospital} may not go on" if rounds < asked else ""
    logger.info(
        "privacy of each %s: %s within epsilon %g, delta %g%s; sigma %.2f to %.2f",
        *(privacy.unit, counted(rounds, "rounds"), privacy.epsilon, privacy.delta, stops),
        *(extreme(each.sigma for each in budgets) for extreme in (min, max)),
    )


def spent(budgets: Sequence[Ref], rounds: Sequence[Mapping[str, Any]]) -> list[Ref]:
    """What each budget's owner has spent after these rounds: a hospital in those that asked it, the server in all."""
    names = [read_budget(each.folder).hospital for each in budgets]
    taken = [sum(name in (*row["asked"], COORDINATOR) for row in rounds) for name in names]
    return gather(count_privacy, names, hospital=names, budget=list(budgets), rounds=taken)
