"""Secret sharing (Shamir, 1979): `threshold` shares give the secret, fewer say nothing about it."""

import secrets
from collections.abc import Iterable, Mapping

from tasks.errors import StudyError

PRIME = 2**521 - 1
"""The field of the shares, a Mersenne prime; secrets of up to 65 bytes are elements of it."""
SHARE_BYTES = 66


def split(secret: bytes, threshold: int, places: Iterable[int]) -> dict[int, bytes]:
    """A share of the secret for each place, which is a number from 1: a random polynomial's value there.

    The polynomial has degree `threshold - 1` and the secret as its value at 0.
    """
    whole = int.from_bytes(secret, "big")
    if len(secret) >= SHARE_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes is no element of the field")
    coefficients = [whole, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {place: _value(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in places}


def _value(coefficients: list[int], place: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % PRIME
    return value


def join(shares: Mapping[int, bytes], threshold: int, length: int) -> bytes:
    """The secret of `length` bytes, by Lagrange's interpolation at 0 from `threshold` of its shares by place.

    Raises StudyError if there are fewer shares, or if these belong to no secret of this length.
    """
    if len(shares) < threshold:
        raise StudyError(
            f"Expected {threshold} shares of a hospital's secret, found {len(shares)}: too few hospitals answered."
        )
    chosen = dict(sorted(shares.items())[:threshold])
    total = 0
    for place, share in chosen.items():
        above = below = 1
        for other in chosen.keys() - {place}:
            above = above * other % PRIME
            below = below * (other - place) % PRIME
        total += int.from_bytes(share, "big") * above * pow(below, -1, PRIME)
    secret = total % PRIME
    if secret >= 256**length:
        raise StudyError(
            "Expected shares of one secret, found some that do not belong together: a hospital is at fault."
        )
    return secret.to_bytes(length, "big")
