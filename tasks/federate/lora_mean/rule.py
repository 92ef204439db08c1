"""The lookup of a rule for means of LoRA: a rule is a strategy around another one."""

import importlib
from typing import TYPE_CHECKING, cast

from tasks.federate.personalise.fedper import FedPer
from tasks.federate.strategies.strategy import choose
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.lora_mean.factors import Factors


def choose_rule(settings: StrategySettings) -> "Factors":
    """The strategy that the settings name, with their rule for LoRA's factors around it; some layers may stay away."""
    module = importlib.import_module(f"tasks.federate.lora_mean.{settings.lora_mean_module}")
    rule = cast("Factors", module.around(choose(settings)))
    return FedPer(rule, settings.personal_layers) if settings.personal_layers else rule
