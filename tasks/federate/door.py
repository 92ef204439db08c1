"""The door: an update is checked before anything is computed with it, and turned away with a reason if it is unsound.

PEFT's own loader takes an adapter whose keys are all foreign, and one of NaN, without a word.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tasks.engine.train import possible_steps
from tasks.errors import StudyError
from tasks.federate.state import Update
from tasks.records.federation import TOGETHER
from tasks.settings import LocalSteps, StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import State


@dataclass(frozen=True)
class Expected:
    """What updates of a round must be like."""

    round: int
    base: str
    """Content of the base that hospitals train on, as in their counts."""
    tensors: Mapping[str, "State"]
    """The tensors that an update's steps are counted from, by group; empty if the server needs no tensors."""
    config: Mapping[str, Any] | None
    """PEFT's configuration of the adapter: rank, alpha and the rest; None for tensors that are no adapter."""
    steps: LocalSteps | None = None
    """What decides how many steps a hospital takes; None where they are not checked."""


def admit(
    sent: Mapping[str, Update | None], expected: Expected, settings: StrategySettings
) -> tuple[list[Update], dict[str, str]]:
    """The updates that pass the door, with bounded sample counts; and the reasons for turning others away, by hospital.

    No update may be longer than `federation.max_norm` times the median norm of the round's sound ones, in any group.
    Raises StudyError if none passes.

    Args:
        sent: by the hospital that sent it, each update; None for files that are no update.
        expected: what it must be like.
        settings: the bounds `max_norm` and `max_samples`.
    """
    sound, reasons, norms = dict[str, Update](), dict[str, str](), dict[str, dict[str, float]]()
    for sender, update in sent.items():
        if update is None:
            reasons[sender] = "unreadable"
        elif reason := next(faults(sender, update, expected), None):
            reasons[sender] = reason
        else:
            lengths = {group: norm(update.parts[group], start) for group, start in expected.tensors.items()}
            if reason := next(not_finite(update, lengths), None):
                reasons[sender] = reason
            else:
                sound[sender], norms[sender] = update, lengths
    reasons |= too_long(norms, expected.tensors, settings.max_norm)
    passed = [
        replace(update, samples=min(update.samples, settings.max_samples))
        for sender, update in sound.items()
        if sender not in reasons
    ]
    if not passed:
        first = next(iter(reasons))
        raise StudyError(
            f"Expected at least one sound update in round {expected.round}, found none ({first}: {reasons[first]}): "
            "lower federation.learning_rate if training diverged."
        )
    return passed, reasons


def faults(sender: str, update: Update, expected: Expected) -> Iterator[str]:
    """What is wrong with the form of an update, the first thing first.

    Reasons are shown to people: nothing that a hospital made up is quoted in them.
    """
    if update.hospital != sender:
        yield "in another hospital's name"
    if update.base_round + 1 != expected.round:
        yield f"of round {update.base_round + 1}"
    if update.base != expected.base:
        yield "trained on another base"
    for what, count in (("training cases", update.samples), ("steps", update.steps)):
        if type(count) is not int or count < 1:
            yield f"no valid number of {what}"
            return
    asked = None if update.hospital == TOGETHER else expected.steps
    if asked and update.steps not in possible_steps(update.samples, **dict(asked)):
        yield "a number of steps that its number of cases does not take"
    for group in sorted(expected.tensors.keys() ^ update.parts.keys()):
        yield f"without tensors of {group}" if group in expected.tensors else "with unexpected groups of tensors"
    for group, tensors in expected.tensors.items():
        yield from misshapen(update.parts[group], tensors)
    if expected.config is not None:
        yield from other_config(update.config or {}, expected.config)


def not_finite(update: Update, norms: Mapping[str, float]) -> Iterator[str]:
    """Tensors and a loss that are not finite.

    Args:
        update: of the right form.
        norms: of its steps, by group: the numbers are looked at again only where one of these is not finite.
    """
    for group, part in update.parts.items():
        if not np.isfinite(norms[group]):
            yield from (f"not finite ({name})" for name in sorted(part) if not bool(torch.isfinite(part[name]).all()))
    if update.parts and not (isinstance(update.loss, float | int) and np.isfinite(update.loss)):
        yield "a loss that is not finite"


def misshapen(found: "State", expected: "State") -> Iterator[str]:
    """Tensors that are missing, unexpected, or of another shape or type."""
    missing, unexpected = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
    if missing or unexpected:
        yield f"{missing} tensors missing and {unexpected} unexpected"
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            yield f"{name} of shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
        if tensor.dtype != expected[name].dtype:
            yield f"{name} of type {tensor.dtype}, not {expected[name].dtype}"


def other_config(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Fields in which an adapter's configuration differs, so that the same tensors mean something else."""
    for name in sorted((found.keys() | expected.keys()) - {"lora_dropout"}):  # dropout is for training alone
        if found.get(name) != expected.get(name):
            yield f"another adapter configuration{f' ({name})' if name in expected else ''}"


def too_long(norms: Mapping[str, Mapping[str, float]], groups: Iterable[str], most: float) -> dict[str, str]:
    """By hospital, why a step is too long: its norm, in multiples of the median norm of all in one group of tensors.

    Args:
        norms: of the steps of each sound update, by hospital and group.
        groups: the groups that count.
        most: the largest multiple that is not too long.
    """
    reasons = dict[str, str]()
    for group in groups:
        median = float(np.median([each[group] for each in norms.values()])) if norms else 0.0
        reasons |= {
            sender: f"{each[group] / median:.3g} times the median norm ({group})"
            for sender, each in norms.items()
            if median and each[group] > most * median
        }
    return reasons


def norm(found: "State", start: "State") -> float:
    """The Euclidean norm of the step from one state to another, over all tensors, in float64."""
    squares = [float((tensor.double() - start[name].double()).square().sum()) for name, tensor in found.items()]
    return float(np.sqrt(sum(squares)))
