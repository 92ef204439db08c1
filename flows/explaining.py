"""The part of a study that explains some of its answers."""

from collections.abc import Sequence
from typing import Any

from prefect import unmapped

from flows.gather import gather
from tasks.evaluate.why_step import explain_some, share_means
from tasks.settings import ModelChoice, Study
from tasks.store import Ref


def show_where(
    study: Study, model: ModelChoice, own: dict[str, Any], answered: Sequence[Sequence[Ref]], adapters: Sequence[Ref]
) -> tuple[list[Ref], list[Ref]]:
    """Every hospital's maps and shares of a few test cases' answers, and the mean shares that leave it.

    Nothing where `evaluation.saliency` is 0. `answered` are each hospital's predictions, its trained adapter's first.
    """
    settings = study.evaluation
    if not settings.saliency:
        return [], []
    # In the order in which other stages draw from each other's cases, so that what is explained was looked at by all.
    counts = [count for count in (settings.reliance, settings.examined, settings.saliency) if count]
    explained = explain_some.map(
        **own,
        adapter=adapters,
        predictions=[refs[0] for refs in answered],
        model=unmapped(model),
        lora=unmapped(study.lora),
        answering=unmapped(settings.answering),
        shown=unmapped(study.retrieval.shown),
        counts=unmapped(counts),
        seed=unmapped(study.seed),
    )
    saliency = gather(explained, own["hospital"])
    shared = share_means.map(hospital=own["hospital"], saliency=saliency, min_cell=unmapped(settings.min_cell))
    return saliency, gather(shared, own["hospital"])
