"""What travels between the stages of a federation: references to what each hospital has, and orders to train."""

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

ADAPTER_FILE = "adapter_model.safetensors"
"""The adapter's tensors, as PEFT names their file."""


def group_file(group: str) -> str:
    """The file that holds a group of tensors in a folder: `adapter`, `fusion`, or what a strategy keeps for itself."""
    return ADAPTER_FILE if group == "adapter" else f"{group}.safetensors"


@dataclass(frozen=True)
class Order:
    """What the coordinator asks of one hospital in a round."""

    round: int
    """Rounds are counted from 1."""
    start: Literal["global", "own"]
    """Train from the server's tensors, or go on from what this hospital trained last."""
    local: LocalRule = field(default_factory=LocalRule)
    """How the strategy changes local training."""


class LibrarySources(BaseModel):
    """A hospital by name, and its own folders that its library is built from."""

    model_config = ConfigDict(frozen=True)

    name: str
    cases: Ref
    features: Ref
    encoded: Ref | None = None
    """Rows of an encoder; None where the base's features and the words of questions are compared."""


class HospitalRefs(BaseModel):
    """A hospital by name, its own folders, and the adapter that it trains on or answers with."""

    model_config = ConfigDict(frozen=True)

    name: str
    cases: Ref
    features: Ref
    library: Ref
    adapter: Ref

    @classmethod
    def at(cls, name: str, places: Mapping[str, Any]) -> Self:
        """A hospital of a finished run, from where its `references.json` says that everything of it is."""
        return cls(name=name, **{part: find(places[part]) for part in ("cases", "features", "library", "adapter")})

    def given(self, adapter: Ref) -> Self:
        """The same hospital with another adapter."""
        return self.model_copy(update={"adapter": adapter})


def read_counts(folder: Path) -> UpdateCounts:
    """What the update in a folder tells beside its tensors; a loss that was not finite is NaN."""
    told = json.loads((folder / "update.json").read_text(encoding="utf-8"))
    return UpdateCounts(**told | {"loss": math.nan if told["loss"] is None else told["loss"]})


def write_counts(folder: Folder, place: str, counts: UpdateCounts) -> None:
    """Write what an update tells into a place within the folder (`""` or `name/`); JSON has no NaN."""
    loss = counts.loss if math.isfinite(counts.loss) else None
    folder.write_json(f"{place}update.json", asdict(counts) | {"loss": loss})
