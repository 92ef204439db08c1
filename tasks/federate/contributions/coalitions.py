"""Aggregates of a round's coalitions, and what their losses tell of single hospitals."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.engine.adapter import State, beside_residual
from tasks.errors import StudyError
from tasks.federate.contributions.shapley import EXACT, Coalition, orders, shapley
from tasks.federate.state import ServerState, Update
from tasks.federate.strategies.strategy import Strategy
from tasks.records.contributions import Contribution
from tasks.records.federation import RESIDUAL


def adapter_of(rule: Strategy, before: ServerState, updates: Sequence[Update]) -> State:
    """The adapter, with its residual if it has one, that a round makes of some of its updates; of none, as before."""
    groups = (rule.aggregate(before, updates) if updates else before).groups
    return beside_residual(groups["adapter"], groups.get(RESIDUAL, {}))


def contributions(
    measured: Sequence[Mapping[str, Any]], count: int, seed: int
) -> tuple[list[Contribution], dict[str, Any]]:
    """What each hospital brought, and the figures of the whole round.

    A coalition's value is by how much it lowers the held-out loss per answer token of all hospitals.

    Args:
        measured: each hospital's `coalitions.json`, of the same coalitions.
        count: orders that were drawn.
        seed: and what they follow from.

    Raises StudyError if no hospital has held-out cases enough.
    """
    tokens = sum(each["tokens"] for each in measured)
    if not tokens:
        raise StudyError(
            "Expected held-out cases to measure contributions on, found no hospital with evaluation.min_cell of them: "
            "raise federation.holdout."
        )
    groups: list[Coalition] = [frozenset(names) for names in measured[0]["coalitions"]]
    losses = {
        group: sum(each["losses"][place] * each["tokens"] for each in measured) / tokens
        for place, group in enumerate(groups)
    }
    before, samples = losses[frozenset()], measured[0]["samples"]

    def gain(group: Coalition) -> float:
        return before - losses[group]

    ways, everyone, exact = orders(list(samples), count, seed), frozenset(samples), len(samples) <= EXACT
    values = shapley(ways, gain)
    rows = [
        Contribution(
            name,
            samples[name],
            values[name][0],
            None if exact else values[name][1],
            gain(everyone) - gain(everyone - {name}),
            gain(frozenset({name})),
        )
        for name in samples
    ]
    about = {"round": measured[0]["round"], "loss_before": before, "loss_after": losses[everyone], "tokens": tokens}
    return rows, about | {"orders": len(ways), "exact": exact}
