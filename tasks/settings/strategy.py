"""Settings of how hospitals' updates become the next round's adapter."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from tasks.settings.base import Settings
from tasks.settings.privacy import PrivacySettings

Joining = Literal[
    "fedavg",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedprox",
    "scaffold",
    "fednova",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "norm-bounded",
    "centered-clipping",
]
"""Strategies that join what several hospitals send, without noise."""


class StrategySettings(Settings):
    """How hospitals' updates become the next round's adapter."""

    former_names: ClassVar[Mapping[str, str]] = {"aggregation": "strategy"}
    strategy: Literal[Joining, "dpfedavg", "none"] = "fedavg"
    """How updates become the next adapter; with `none` each hospital goes on from its own adapter, alone."""
    server_momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the last round's step that the server adds to the next one (`fedavgm` alone)."""
    server_learning_rate: float = Field(0.01, gt=0)
    """The server's step in each weight, where its steps agree (`fedadam` and `fedyogi`)."""
    server_beta1: float = Field(0.9, ge=0, lt=1)
    """Share of the last round's mean step that the server keeps (`fedadam` and `fedyogi`)."""
    server_beta2: float = Field(0.99, ge=0, lt=1)
    """Share of the last round's mean square that the server keeps (`fedadam` and `fedyogi`)."""
    server_tau: float = Field(1e-3, gt=0)
    """Steps much smaller than this stay small, instead of being scaled up (`fedadam` and `fedyogi`)."""
    proximal_mu: float = Field(0.01, gt=0)
    """Weight of the pull towards the adapter that a round begins with, in local training (`fedprox` alone)."""
    max_samples: int = Field(100_000, ge=1)
    """Most training cases that a hospital is weighted by, whatever it claims; robust strategies use no such weight."""
    max_norm: float = Field(10, gt=1)
    """Longest update that is used, as a multiple of the round's median norm; a longer one is left out."""
    byzantine: int = Field(1, ge=0)
    """How many hospitals may send anything at all: what robust strategies tolerate (docs/federation.md)."""
    pre_aggregation: Literal["none", "nnm"] = "none"
    """With `nnm`, a robust strategy sees each update as the mean of those nearest to it (nearest-neighbour mixing)."""
    clip: float = Field(1, gt=0)
    """Clipping bound, as a multiple of the round's median norm (`norm-bounded`) or spread (`centered-clipping`)."""

    personal_layers: tuple[str, ...] = ()
    """Layers that each hospital keeps to itself, by parts of their tensors' names, as `layers.3` (`fedper` alone)."""
    privacy: PrivacySettings = PrivacySettings()
    """Differential privacy of what is learned."""
    lora_mean: Literal[
        "factors", "product", "freeze-a", "stacked", "alternate", "share-a", "residual", "rotate", "svd-b", "near"
    ] = "factors"
    """How LoRA's factors A and B are averaged, since the mean of A times the mean of B is not the mean of the products:
    each by itself (`factors`), or by another rule of docs/federation.md."""

    @field_validator("lora_mean")
    @classmethod
    def _can_be_averaged(cls, rule: str, info: ValidationInfo) -> str:
        """Rules that need more of a strategy than the mean of what hospitals send say so before anything runs."""
        strategy = info.data.get("strategy")
        if rule != "factors" and strategy == "none":
            raise ValueError(f"expected factors with strategy none, which averages nothing, found {rule}")
        if rule != "factors" and strategy == "scaffold":
            raise ValueError(f"expected factors with strategy scaffold, whose controls are of both, found {rule}")
        if rule not in WITH_ANY_STRATEGY and strategy not in PLAIN_MEANS:
            raise ValueError(f"expected strategy {' or '.join(PLAIN_MEANS)} with lora_mean {rule}, found {strategy}")
        return rule

    @property
    def takes_mean(self) -> bool:
        """Whether the next adapter is the mean of what hospitals trained, so that what a rule loses of it is known."""
        return self.strategy in PLAIN_MEANS

    @property
    def module(self) -> str:
        """The name of the strategy's module in `tasks/federate/strategies/`."""
        return self.strategy.replace("-", "_")

    @property
    def lora_mean_module(self) -> str:
        """The module of the rule in `tasks.federate.lora_mean`."""
        return self.lora_mean.replace("-", "_")


PLAIN_MEANS = ("fedavg", "fedprox")
"""Strategies whose next adapter is the mean of the hospitals' adapters."""
WITH_ANY_STRATEGY = ("factors", "freeze-a", "share-a", "rotate")
"""Rules that leave it to the strategy what is made of factors that mean the same in each round."""


class LocalSteps(Settings):
    """What decides how many optimiser steps a hospital takes in a round, beside the number of its cases."""

    epochs: int
    batch_size: int
    by_image: bool
