"""The share of a round's update that a mean of LoRA factors loses."""

import math
from collections.abc import Sequence

from tasks.federate.lora_mean.products import B, Product, State, layers, product_of, residual_of, shares_of, summed
from tasks.federate.means import weighted_mean
from tasks.federate.state import ServerState, Update, completed

ROUNDING = 1e-12
"""Relative norm of an update below which nothing has changed but the last digits of float64."""


def lost_shares(
    rule: str | None, before: ServerState, used: Sequence[Update], after: ServerState
) -> dict[str, dict[str, float]]:
    """What the mean of factors loses of a round's update, and what the rule does, as `lost_share` of `round.json`.

    Empty where the server has no product: nothing is averaged, or hospitals keep a factor. Empty too without a rule,
    where the server sees a sum alone. A factor that hospitals did
    not send otherwise is the server's.
    """
    if rule is None or not any(B in name for name in after.groups.get("adapter", {})):
        return {"lost_share": {}}
    start, samples = before.groups["adapter"], [update.samples for update in used]
    sent = [completed(update.parts["adapter"], start) for update in used]
    shares = {
        "factors": lost_share(
            before, sent, samples, ServerState({**before.groups, "adapter": weighted_mean(sent, samples)})
        )
    }
    if rule != "factors":
        shares[rule] = lost_share(before, sent, samples, after)
    return {"lost_share": shares}


def lost_share(before: ServerState, sent: Sequence[State], samples: Sequence[int], after: ServerState) -> float:
    """The norm of what a mean misses of the update, relative to the norm of the update; 0 if nothing changed.

    The update is the sample-weighted mean of the products B A of all hospitals, less that of the adapter before the
    round. Norms are Frobenius norms over all layers together. Other tensors than LoRA's do not count. A residual does:
    hospitals trained beside the one before the round.

    Args:
        before: the adapter from which all hospitals started.
        sent: what hospitals trained.
        samples: their training cases.
        after: the adapter that the next round starts from.
    """
    missed, moved, size = 0.0, 0.0, 0.0
    for layer in layers(before.groups["adapter"]):
        whole = _whole(before, layer, summed([product_of(state, layer) for state in sent], shares_of(samples)))
        missed += _distance(whole, _whole(after, layer)) ** 2
        moved += _distance(whole, _whole(before, layer)) ** 2
        size += whole.norm() ** 2
    return math.sqrt(missed / moved) if moved > ROUNDING**2 * size else 0.0


def _whole(state: ServerState, layer: str, product: Product | None = None) -> Product:
    """A layer's product, that of the state where none is given, with the state's residual."""
    product, kept = product or product_of(state.groups["adapter"], layer), residual_of(state, layer)
    return summed([product, kept], [1, 1]) if kept else product


def _distance(one: Product, other: Product) -> float:
    return summed([one, other], [1, -1]).norm()
