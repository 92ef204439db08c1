"""What a benchmark gives, and a process of its own to measure in: nothing here loads a large library."""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One thing measured against another."""

    name: str
    value: float
    """This project's."""
    reference: float
    """What it is held against, measured in the same run."""
    target: float | None
    """Of the ratio, where there is one."""
    unit: str
    at_most: bool = False
    """Whether the ratio should be the target or less, not the target or more."""
    ceiling: float | None = None
    """The largest ratio that matrix products allow here (`benchmarks.limit`); None where that was not measured."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What else was measured or checked."""

    @property
    def ratio(self) -> float:
        """Value by reference."""
        return self.value / self.reference

    @property
    def reached(self) -> float | None:
        """Share of the ceiling."""
        return None if self.ceiling is None else self.ratio / self.ceiling

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def to_json(self) -> dict[str, Any]:
        """The row of `bench.json`."""
        row = {"name": self.name, "value": self.value, "reference": self.reference, "ratio": self.ratio}
        return row | {"target": self.target, "unit": self.unit}


def alone(body: Callable[..., Any], *given: Any) -> Any:
    """What the body returns, run in a new process: nothing is warm, and its peak of memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(body, *given).result()
