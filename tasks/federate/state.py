"""The input and output of a strategy: hospitals' updates, and the server's state between rounds.

Tensors come in groups: `adapter`, `fusion`, or a group that only the strategy uses, such as a momentum. Each group is
one file in the folder of a round.
"""

import json
from abc import abstractmethod
from collections import ChainMap
from collections.abc import Callable, ItemsView, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, group_file, read_counts
from tasks.store import Folder

if TYPE_CHECKING:
    import torch

    State = Mapping[str, "torch.Tensor"]


class Lazy(Mapping[str, "torch.Tensor"]):
    """Named tensors, each of which is made when it is asked for."""

    @abstractmethod
    def pairs(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        """All names and tensors, one after the other."""

    def items(self) -> ItemsView[str, "torch.Tensor"]:
        """The same, as of any mapping."""
        return _Pairs(self)


class _Pairs(ItemsView[str, "torch.Tensor"]):
    _mapping: Lazy

    def __iter__(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        return self._mapping.pairs()


class Stored(Lazy):
    """Named tensors in a file. Each is read when it is asked for: a round's updates need not fit in memory.

    A tensor is a view of the file: only what is looked at is read, and memory is free once the tensor is gone.
    """

    def __init__(self, path: Path) -> None:
        """Raises SafetensorError if the file is not whole, OSError if there is none."""
        self._path = path
        with self._open() as file:
            self._names: list[str] = list(file.keys())

    def __getitem__(self, name: str) -> "torch.Tensor":
        if name not in self._names:
            raise KeyError(name)
        with self._open() as file:
            return file.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def pairs(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        """All names and tensors, by opening the file once."""
        with self._open() as file:
            for name in self._names:
                yield name, file.get_tensor(name)

    def _open(self) -> Any:
        from safetensors import safe_open

        return safe_open(self._path, "pt")


class Changed(Lazy):
    """Another state's tensors, each changed when it is asked for."""

    def __init__(self, state: "State", change: Callable[[str, "torch.Tensor"], "torch.Tensor"]) -> None:
        self._state, self._change = state, change

    def __getitem__(self, name: str) -> "torch.Tensor":
        return self._change(name, self._state[name])

    def __contains__(self, name: object) -> bool:
        return name in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def pairs(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        """All names and changed tensors."""
        return ((name, self._change(name, tensor)) for name, tensor in self._state.items())


def completed(sent: "State", by: "State") -> "State":
    """What a hospital sent; where it sent no tensor, the server's."""
    return sent if sent.keys() >= by.keys() else ChainMap(sent, by)  # type: ignore[arg-type]  # nobody writes to it


@dataclass(frozen=True)
class ServerState:
    """Everything that a strategy carries from one round to the next."""

    groups: Mapping[str, "State"]
    """Named float32 tensors, by group."""


@dataclass(frozen=True)
class Update:
    """What one hospital returns after a round."""

    hospital: str
    base_round: int
    """The round whose state the hospital started from; 0 is the initial state."""
    samples: int
    """Training cases in one epoch."""
    loss: float
    """Mean training loss per answer token; NaN if training diverged."""
    parts: Mapping[str, "State"]
    """The trained tensors, by group; empty if the strategy needs none."""
    steps: int = 1
    """Optimiser steps of local training."""
    base: str = ""
    """Content of the base that the hospital trained on; empty for the gated fusion, which has none."""
    config: Mapping[str, Any] | None = None
    """PEFT's configuration of the adapter, if the tensors are one."""


def read_update(folder: Path, tensors: bool) -> Update:
    """Read an update's counts; its tensors, if they are needed, are read when they are looked at."""
    counts = read_counts(folder)
    return Update(
        counts.hospital,
        counts.round - 1,
        counts.samples,
        counts.loss,
        {group: Stored(path) for group, path in _group_files(folder).items()} if tensors else {},
        counts.steps,
        counts.base,
        read_config(folder) if tensors else None,
    )


def read_sent(folder: Path, tensors: bool) -> Update | None:
    """Read what a hospital sent; None if it is no update."""
    from safetensors import SafetensorError

    try:
        return read_update(folder, tensors)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError):
        return None


def read_config(folder: Path) -> dict[str, Any] | None:
    """PEFT's configuration of the adapter in a folder; None if there is none."""
    path = folder / CONFIG_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def read_state(folder: Path) -> ServerState:
    """Read all groups from the folder of a round, or of the initial tensors."""
    from safetensors.torch import load_file

    return ServerState({group: load_file(path) for group, path in _group_files(folder).items()})


def _group_files(folder: Path) -> dict[str, Path]:
    paths = sorted(folder.glob("*.safetensors"))
    return {"adapter" if path.name == ADAPTER_FILE else path.stem: path for path in paths}


def write_state(folder: Folder, state: ServerState) -> None:
    """Write one file for each group."""
    from safetensors.torch import save

    for group, tensors in sorted(state.groups.items()):
        folder.write(group_file(group), save(dict(sorted(tensors.items())), {"format": "pt"}))
