"""Numbers as integers modulo 2^64, so that a sum of masked ones is exact."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.errors import StudyError

Words = NDArray[np.uint64]
"""Integers modulo 2^64, `(n,)`; negative numbers are in two's complement."""


@dataclass(frozen=True)
class FixedPoint:
    """Fixed-point numbers with `bits` binary places, of which `terms` can be added without overflow.

    A decoded sum differs from the exact sum of the numbers by at most `error_bound`.
    """

    terms: int
    bits: int = 32

    @property
    def largest(self) -> float:
        """The largest absolute value that can be encoded: `terms` of them stay below 2^63 in absolute value."""
        return ((2**63 - 1) // self.terms) / 2**self.bits

    def error_bound(self, total: float) -> float:
        """How far a decoded sum may be from the exact sum, which is `total`.

        Each term is rounded once, by at most 2^-(bits + 1). The sum is exact, and becomes a float64 at the end.
        """
        return self.terms * 2.0 ** -(self.bits + 1) * (1 + 2**-52) + abs(total) * 2**-53

    def encode(self, values: ArrayLike) -> Words:
        """Numbers `(n,)` as integers.

        Raises StudyError if a number is not finite or too large for a sum of `terms` numbers.
        """
        numbers = np.asarray(values, dtype=np.float64)
        size = float(np.abs(numbers).max(initial=0.0))
        if not size < self.largest:  # also where it is NaN
            raise StudyError(
                f"Expected numbers below {self.largest:g} to sum {self.terms} of them in secret, found {size:g}: "
                "the update diverged, so lower federation.learning_rate."
            )
        return np.rint(numbers * 2.0**self.bits).astype(np.int64).view(np.uint64)

    def decode(self, total: Words) -> NDArray[np.float64]:
        """The numbers `(n,)` of a sum of encoded ones, as float64."""
        return total.view(np.int64) / 2.0**self.bits


def to_bytes(words: Words) -> bytes:
    """Eight bytes a word, the lowest first, on any machine."""
    return words.astype("<u8", copy=False).tobytes()


def from_bytes(data: bytes, length: int) -> Words:
    """The `length` words of `to_bytes`, read-only. Raises StudyError if there are more or fewer."""
    if len(data) != 8 * length:
        raise StudyError(
            f"Expected a masked update of {8 * length} bytes, found {len(data)}: its hospital is at fault."
        )
    return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
