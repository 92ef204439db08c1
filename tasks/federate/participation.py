"""Who takes part in each round: members of the federation, those asked of them, and the record of those who answered.

Sampling hospitals uniformly, without replacement, is what FedAvg's clients are sampled by (arXiv 1602.05629).
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.errors import StudyError
from tasks.settings import ParticipationSettings
from tasks.store import derived_seed
from tasks.text.wording import counted

FILE = "participation.json"
"""Name of the record in a run's folder."""


@dataclass(frozen=True)
class Participation:
    """Who takes part in which round; all follows from the settings, the names, the seed and a record that is replayed.

    Raises StudyError for settings that name other hospitals, that ask for more than there are, or for a record that
    cannot be replayed.
    """

    settings: ParticipationSettings
    hospitals: Sequence[str]
    rounds: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("joins", "leaves"):
            for hospital in getattr(self.settings, name):
                self.check_name(hospital, f"federation.{name}")
        if self._recorded and len(self._recorded) < self.rounds:
            raise StudyError(
                f"Expected a record of {counted(self.rounds, 'rounds')} in {self.settings.participation}, found "
                f"{len(self._recorded)}: set federation.rounds={len(self._recorded)}, or replay another run."
            )
        for number in range(1, self.rounds + 1):
            self._check_round(number)

    def members(self, number: int) -> list[str]:
        """The hospitals that have joined by a round and have not left before it."""
        joins, leaves = self.settings.joins, self.settings.leaves
        return [each for each in self.hospitals if joins.get(each, 1) <= number <= leaves.get(each, number)]

    def receivers(self, number: int) -> list[str]:
        """The hospitals that get a round's result: its members, and those who join in the next round."""
        joining = [each for each, first in self.settings.joins.items() if first == number + 1]
        return [each for each in self.hospitals if each in joining or each in self.members(number)]

    def asked(self, number: int) -> list[str]:
        """The hospitals that a round asks to train, in the order of all."""
        if self._recorded:
            return [each for each in self.hospitals if each in self._recorded[number - 1]]
        members, wanted = self.members(number), self.settings.participants
        if wanted is None:
            wanted = max(1, round(self.settings.fraction * len(members)))
        drawn = random.Random(derived_seed(self.seed, "participation", number)).sample(
            members, min(wanted, len(members))
        )
        return [each for each in self.hospitals if each in drawn]

    def least(self, number: int) -> int:
        """How many of those that a round asks have to answer: all of them where a record is replayed."""
        asked = len(self.asked(number))
        if self.settings.participation:
            return asked
        return asked // 2 + 1 if self.settings.min_hospitals is None else self.settings.min_hospitals

    def check_name(self, name: str, where: str) -> None:
        """Raise StudyError if a name in some setting is none of a hospital."""
        if name not in self.hospitals:
            raise StudyError(
                f"Expected names of this study's hospitals in {where}, found {name}: they are "
                f"{', '.join(self.hospitals)}."
            )

    def _check_round(self, number: int) -> None:
        asked, fewest = len(self.asked(number)), max(self.settings.participants or 1, self.settings.min_hospitals or 1)
        if asked < fewest:
            raise StudyError(
                f"Expected at least {counted(fewest, 'hospitals')} to ask in round {number}, found {asked}: lower "
                "federation.participants or federation.min_hospitals, or let more hospitals take part."
            )

    @cached_property
    def _recorded(self) -> list[list[str]]:
        """By round, who answered in the record that is replayed; empty if none is."""
        path = self.settings.participation
        if path is None:
            return []
        found = read_participation(path)
        for each in (name for names in found for name in names):
            self.check_name(each, str(path))
        return found


def read_participation(path: Path) -> list[list[str]]:
    """By round, the hospitals that answered. Raises StudyError if the file is no such record."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rounds"]
        found = [[str(name) for name in row["answered"]] for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise StudyError(
            f"Expected the record of a run in federation.participation, found none in {path} ({reason}): name the "
            f"{FILE} of a finished run."
        ) from None
    if not found or not all(found):
        raise StudyError(
            f"Expected at least one hospital in each round of {path}, found none: name another run's {FILE}."
        )
    return found


def record(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a run, from its rows of rounds: who was asked, who answered, and why others did not."""
    return {
        "rounds": [
            {
                "round": row["round"],
                "asked": row["asked"],
                "answered": [each for each in row["asked"] if each not in row["missing"]],
                "missing": row["missing"],
            }
            for row in rounds
        ]
    }
