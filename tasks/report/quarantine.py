"""Which hospitals' updates the rounds of a study are without, and why, as text."""

from collections.abc import Mapping, Sequence
from typing import Any


def left_out(row: Mapping[str, Any]) -> str:
    """The hospitals that a round is without, each with the reason; `none` if it was none, or is not known."""
    return ", ".join(f"{hospital} ({reason})" for hospital, reason in _reasons(row).items()) or "none"


def quarantine_rows(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Round, hospital and reason, headings first; a round of an earlier version tells none."""
    found = [(str(row["round"]), hospital, reason) for row in rounds for hospital, reason in _reasons(row).items()]
    return [("round", "hospital", "reason"), *found]


def _reasons(row: Mapping[str, Any]) -> dict[str, str]:
    """Of those that did not answer, and of those whose update was left out."""
    missing = {hospital: f"did not answer: {reason}" for hospital, reason in row.get("missing", {}).items()}
    return missing | row.get("quarantined", {})
