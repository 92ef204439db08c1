"""Hospitals of a lower rank: each trains the first components of the adapter, and its update is padded with zeros.

As in HetLoRA (arXiv 2401.06432), without its pruning. With a rule that averages products, the components of the
adapter are in the order of their singular values, so that the first are the best adapter of that rank (FlexLoRA, arXiv
2402.11505).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.federate.lora_mean.factors import Factors
from tasks.records.federation import Order

if TYPE_CHECKING:
    import torch

    from tasks.federate.state import Update


@dataclass(frozen=True)
class OfRanks(Factors):
    """A rule as it is, with orders to train at most a rank of each hospital's own."""

    ranks: Mapping[str, int]

    def order(self, round_number: int, hospital: str) -> Order:
        """The rule's order, for this hospital's rank."""
        order = super().order(round_number, hospital)
        return replace(order, local=order.local.model_copy(update={"rank": self.ranks.get(hospital)}))


def cut(state: "Mapping[str, torch.Tensor]", rank: int) -> "dict[str, torch.Tensor]":
    """The first components of an adapter: rows of A `(r, in)`, columns of B `(out, r)`; other tensors as they are."""
    return {
        name: tensor[:rank].clone()
        if ".lora_A." in name
        else tensor[:, :rank].clone()
        if ".lora_B." in name
        else tensor
        for name, tensor in state.items()
    }


def padded(state: "Mapping[str, torch.Tensor]", rank: int) -> "dict[str, torch.Tensor]":
    """An adapter of this rank with the same products: further rows of A and columns of B are 0.

    Such components have no gradient, so that they stay 0 in training.
    """
    from torch.nn.functional import pad

    found = dict(state)
    for name, tensor in state.items():
        if ".lora_A." in name:
            found[name] = pad(tensor, (0, 0, 0, rank - tensor.shape[0]))
        elif ".lora_B." in name:
            found[name] = pad(tensor, (0, rank - tensor.shape[1]))
    return found


def padded_update(update: "Update", wanted: Mapping[str, Any], rank: int) -> "Update":
    """An update of the rank that was agreed on, with the rank of the wanted PEFT configuration; others as they are.

    What is no adapter of that rank is left for the door to turn away.
    """
    from tasks.federate.lora_mean.scaling import folded, scaling_of

    config, state = update.config, update.parts.get("adapter", {})
    shapes = {tensor.shape[0 if ".lora_A." in name else 1] for name, tensor in state.items() if ".lora_" in name}
    if config is None or config.get("r") != rank or shapes != {rank}:
        return update
    update = folded(update, scaling_of(config), scaling_of(wanted))
    same = {name: wanted[name] for name in ("r", "lora_alpha")}
    parts = {**update.parts, "adapter": padded(update.parts["adapter"], wanted["r"])}
    return replace(update, parts=parts, config={**config, **same})
