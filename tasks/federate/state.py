"""What a strategy computes with: hospitals' updates, and the server's state between rounds, tensors by group.

A group is a set of tensors that belong together: `adapter`, `fusion`, or what a strategy keeps for itself. Each is a
file of its own in the folder of a round.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.records.federation import ADAPTER_FILE, group_file, read_counts
from tasks.store import Folder

if TYPE_CHECKING:
    import torch

    State = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class ServerState:
    """All that a strategy carries from one round into the next."""

    groups: Mapping[str, "State"]
    """Named float32 tensors, by group."""


@dataclass(frozen=True)
class Update:
    """What one hospital sends back after a round."""

    hospital: str
    base_round: int
    """The round whose state the hospital started from; 0 is the initial one."""
    samples: int
    """Training cases seen in one epoch."""
    loss: float
    """Mean training loss per answer token; NaN where training diverged."""
    parts: Mapping[str, "State"]
    """The trained tensors, by group; empty where the strategy needs none of them."""


def read_update(folder: Path, groups: Iterable[str]) -> Update:
    """An update's counts, and its tensors of these groups."""
    from safetensors.torch import load_file

    told = read_counts(folder)
    parts = {group: load_file(folder / group_file(group)) for group in groups}
    return Update(told.hospital, told.round - 1, told.samples, told.loss, parts)


def read_state(folder: Path) -> ServerState:
    """The groups in the folder of a round, or of the initial tensors."""
    from safetensors.torch import load_file

    paths = sorted(folder.glob("*.safetensors"))
    return ServerState({"adapter" if path.name == ADAPTER_FILE else path.stem: load_file(path) for path in paths})


def write_state(folder: Folder, state: ServerState) -> None:
    """One file for each group."""
    from safetensors.torch import save

    for group, tensors in sorted(state.groups.items()):
        folder.write(group_file(group), save(dict(sorted(tensors.items())), {"format": "pt"}))
