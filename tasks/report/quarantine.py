"""Which hospitals' updates the rounds of a study have left out, and why, as text."""

from collections.abc import Mapping, Sequence
from typing import Any


def left_out(row: Mapping[str, Any]) -> str:
    """The hospitals that a round has left out, each with the reason; `none` if it was none, or is not known."""
    return ", ".join(f"{hospital} ({reason})" for hospital, reason in row.get("quarantined", {}).items()) or "none"


def quarantine_rows(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Round, hospital and reason, headings first; a round of an earlier version tells none."""
    found = [
        (str(row["round"]), hospital, reason)
        for row in rounds
        for hospital, reason in row.get("quarantined", {}).items()
    ]
    return [("round", "hospital", "reason"), *found]
