"""What strategies change in local training: gradient corrections, and which tensors are trained and sent."""

from collections.abc import Mapping

import torch

from tasks.engine.train import Correction, is_frozen
from tasks.federate.lora_mean.ranks import cut
from tasks.settings import LocalRule


def correction(rule: LocalRule, start: Mapping[str, torch.Tensor]) -> Correction | None:
    """The gradient correction of a rule, or None if the rule has none.

    Args:
        rule: how the strategy changes local training.
        start: the tensors at the start of the round, by name.
    """
    return proximal(rule.proximal_mu, start) if rule.proximal_mu else None


def sent(rule: LocalRule, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that a hospital sends: all but the frozen factor of LoRA, of the rank that it trains."""
    found = {name: tensor for name, tensor in state.items() if not is_frozen(name, rule.frozen)}
    return cut(found, rule.rank) if rule.rank else found


def proximal(mu: float, start: Mapping[str, torch.Tensor]) -> Correction:
    """Adds the gradient of `mu / 2 * |w - w_start|^2` (FedProx, arXiv 1812.06127)."""

    @torch.no_grad()
    def correct(parameters: Mapping[str, torch.nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start[name].to(parameter.device), alpha=mu)

    return correct
