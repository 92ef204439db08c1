"""What a hospital shares of its answers, as the JSON files that it writes (docs/privacy.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from tasks.records.explanations import Means


class ClosedCounts(TypedDict):
    """Counts of closed questions."""

    n: int
    correct: int
    confusion: list[list[Any]]
    """Right label, given label, and how often this pair occurs."""


class OpenSums(TypedDict):
    """Sums of scores of open questions."""

    n: int
    sums: dict[str, float]
    """By field of a metric."""


class ChoiceCounts(TypedDict):
    """Counts of the closed questions that are multiple choice."""

    n: int
    correct: int


class TallyDocument(TypedDict):
    """Counts and sums over one configuration's answers."""

    closed: ClosedCounts
    open: OpenSums
    choice: ChoiceCounts


class WithheldScores(TypedDict):
    """What a hospital does not tell of its answers, by name alone."""

    questions: list[str]
    """Of `closed`, `open` and `choice`."""
    labels: bool
    groups: dict[str, list[str]]
    """Values by group."""
    by_kind: dict[str, list[str]]
    """Values of groups whose closed and open questions are not told apart."""


class ScoresDocument(TypedDict):
    """`scores.json`."""

    hospital: str
    tallies: dict[str, TallyDocument]
    """By configuration."""
    withheld: WithheldScores
    calibration: NotRequired[dict[str, list[list[float]]]]
    """By configuration that is a model: of each reliability bin the count, and sums of confidence and score."""


class AbstentionDocument(TypedDict):
    """`abstention.json`."""

    hospital: str
    held_out_cases: int | str
    """A text where it is withheld, as below."""
    held_out_images: int | str
    images: list[list[float]]
    """Of each image the sums of `tasks.records.abstention`."""
    withheld: list[str]


class ModeCounts(TypedDict):
    """How many answers show a failure mode, and of how many its rule applies; None where that is withheld."""

    cases: int | None
    of: int | None


class FailuresDocument(TypedDict):
    """`failures.json`."""

    hospital: str
    n: int | None
    """Answers examined; None where that is withheld."""
    modes: dict[str, ModeCounts]


class SharesDocument(TypedDict):
    """`shares.json`."""

    hospital: str
    n: int | None
    """Answers explained; None where that is withheld."""
    methods: Means


@dataclass(frozen=True)
class SharedDocuments:
    """What the hospitals of a study share of their answers, a document of each hospital."""

    scores: Sequence[ScoresDocument]
    reliance: Sequence[ScoresDocument] = ()
    """Of their answers to altered prompts; none, as below, where that was not measured."""
    failures: Sequence[FailuresDocument] = ()
    shares: Sequence[SharesDocument] = ()
    abstention: Sequence[AbstentionDocument] = ()
