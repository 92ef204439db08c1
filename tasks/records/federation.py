"""Records that the stages of a federation exchange: references to a hospital's folders, and orders to train."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from tasks.records.results import UpdateCounts
from tasks.settings import LocalRule
from tasks.store import Folder, Ref, find

TOGETHER = "together"
"""Stands for all hospitals of a secure sum, in place of a hospital's name."""
ADAPTER_FILE = "adapter_model.safetensors"
"""PEFT's name of the file with the adapter's tensors."""
RESIDUAL = "adapter-residual"
"""The group of tensors of a second adapter beside it, which does not learn; named as LoRA's, of any rank."""

CONFIG_FILE = "adapter_config.json"
"""PEFT's name of the file with the adapter's rank, alpha and targets."""
CONTROL = "-control"
"""End of the name of a group that holds SCAFFOLD's control variate of another group."""
CONTROL_FILE = f"adapter{CONTROL}.safetensors"


def group_file(group: str) -> str:
    """The file name of a group of tensors: `adapter`, `fusion`, or a group that only a strategy uses."""
    return ADAPTER_FILE if group == "adapter" else f"{group}.safetensors"


@dataclass(frozen=True)
class Order:
    """The coordinator's order to one hospital for one round."""

    round: int
    """Counted from 1."""
    start: Literal["global", "own", "joined"]
    """Start from the server's tensors, from this hospital's last trained ones, or from the server's and, where the
    server has none, this hospital's own."""
    keeps: tuple[str, ...] = ()
    """Parts of names of the tensors that are trained and stay at the hospital, as `lora_B` or `layers.3`."""
    local: LocalRule = field(default_factory=LocalRule)
    """How the strategy changes local training."""


class LibrarySources(BaseModel):
    """A hospital's name, and the folders that its library is built from."""

    model_config = ConfigDict(frozen=True)

    name: str
    cases: Ref
    features: Ref
    encoded: Ref | None = None
    """Rows of an encoder; None if cases are compared by the base's features and the questions' words."""


class HospitalRefs(BaseModel):
    """A hospital's name, its folders, and the adapter that it trains from or answers with."""

    model_config = ConfigDict(frozen=True)

    name: str
    cases: Ref
    features: Ref
    library: Ref
    adapter: Ref
    control: Ref | None = None
    """Its control variate after its last round (SCAFFOLD); None before the first, and where none is used."""
    tuning: Ref | None = None
    """How it uses its retrieved cases to answer; None for what the study's settings say."""
    budget: Ref | None = None
    """Its privacy budget, with which it trains; None without noise."""

    @classmethod
    def at(cls, name: str, places: Mapping[str, Any]) -> Self:
        """A hospital of a finished run; `places` is its entry in `references.json`."""
        parts = ("cases", "features", "library", "adapter", "tuning")
        return cls(name=name, **{part: find(places[part]) for part in parts if part in places})

    def given(self, adapter: Ref) -> Self:
        """The same hospital with another adapter."""
        return self.model_copy(update={"adapter": adapter})


class Dealt(BaseModel):
    """The data of a simulation as it was dealt to hospitals."""

    model_config = ConfigDict(frozen=True)

    cases: Ref
    """The ingested cases, or the questions that were made of them."""
    dataset: Ref
    """The ingested dataset, which has the images."""
    assignment: Ref


class SeenBefore(BaseModel):
    """Vision features that an earlier run computed, and the images that they are of."""

    model_config = ConfigDict(frozen=True)

    features: Ref
    images: Ref


class TrainingData(BaseModel):
    """A public dataset to train a base on: its folder, and what was made of it."""

    model_config = ConfigDict(frozen=True)

    dataset: Ref
    features: Ref
    varied: Ref
    """Features of altered copies of its training images."""
    library: Ref


def read_counts(folder: Path) -> UpdateCounts:
    """Read the counts and the loss of the update in a folder; a loss that was not finite is NaN."""
    counts = json.loads((folder / "update.json").read_text(encoding="utf-8"))
    return UpdateCounts(**counts | {"loss": math.nan if counts["loss"] is None else counts["loss"]})


def write_counts(folder: Folder, place: str, counts: UpdateCounts) -> None:
    """Write an update's counts under a prefix of the folder (`""` or `name/`); a loss that is not finite is null."""
    loss = counts.loss if math.isfinite(counts.loss) else None
    folder.write_json(f"{place}update.json", asdict(counts) | {"loss": loss})
