"""The part of a study that looks for failure modes."""

from collections.abc import Sequence
from typing import Any

from prefect import unmapped

from flows.gather import gather
from tasks.evaluate.why_step import count_failures, find_failures
from tasks.settings import ModelChoice, Study
from tasks.store import Ref


def find_and_count(
    study: Study, model: ModelChoice, own: dict[str, Any], adapters: Sequence[Ref], relied: Sequence[Ref]
) -> tuple[list[Ref], list[Ref]]:
    """Every hospital's failure modes by case, and the counts that it shares of them.

    Nothing where `evaluation.examined` is 0 or no prompts were altered: `relied` are the answers to these.
    """
    if not study.evaluation.examined or not relied:
        return [], []
    found = find_failures.map(
        **own,
        adapter=adapters,
        reliance=relied,
        model=unmapped(model),
        lora=unmapped(study.lora),
        shown=unmapped(study.retrieval.shown),
        tokens=unmapped(study.evaluation.tokens_per_pass),
        count=unmapped(study.evaluation.examined),
        seed=unmapped(study.seed),
    )
    failures = gather(found, own["hospital"])
    counted = count_failures.map(
        hospital=own["hospital"], failures=failures, min_cell=unmapped(study.evaluation.min_cell)
    )
    return failures, gather(counted, own["hospital"])
