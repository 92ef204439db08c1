"""Types of the JSON files in which a hospital shares scores and counts of its answers (docs/privacy.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from tasks.records.explanations import Means


class ClosedCounts(TypedDict):
    """Counts of closed questions."""

    n: int
    correct: int
    confusion: list[list[Any]]
    """Rows of correct label, given label, and how often this pair occurs."""


class OpenSums(TypedDict):
    """Sums of scores of open questions."""

    n: int
    sums: dict[str, float]
    """By field of a metric."""


class ChoiceCounts(TypedDict):
    """Counts of the multiple-choice questions among the closed questions."""

    n: int
    correct: int


class TallyDocument(TypedDict):
    """Counts and sums over one configuration's answers."""

    closed: ClosedCounts
    open: OpenSums
    choice: ChoiceCounts


class WithheldScores(TypedDict):
    """What a hospital withholds of its scores, by name only."""

    questions: list[str]
    """Withheld kinds: some of `closed`, `open` and `choice`."""
    labels: bool
    groups: dict[str, list[str]]
    """Withheld values, by group."""
    by_kind: dict[str, list[str]]
    """By group, values whose closed and open questions are only reported together."""


class ScoresDocument(TypedDict):
    """`scores.json`."""

    hospital: str
    tallies: dict[str, TallyDocument]
    """By configuration."""
    withheld: WithheldScores
    calibration: NotRequired[dict[str, list[list[float]]]]
    """By configuration of a model, for each reliability bin: the count, and sums of confidence and score."""


class AbstentionDocument(TypedDict):
    """`abstention.json`."""

    hospital: str
    held_out_cases: int | str
    """A text if it is withheld; so is `held_out_images`."""
    held_out_images: int | str
    images: list[list[float]]
    """For each image, the sums of `tasks.records.abstention`, by kind and column."""
    withheld: list[str]


class GainDocument(TypedDict):
    """`gain.json`."""

    hospital: str
    images: list[list[float]]
    """For each image its questions, and the right answers to them with the adapter for all and with the personal one;
    empty if withheld."""
    withheld: bool


class ModeCounts(TypedDict):
    """How many answers show a failure mode (`cases`), and to how many its rule applies (`of`); None if withheld."""

    cases: int | None
    of: int | None


class FailuresDocument(TypedDict):
    """`failures.json`."""

    hospital: str
    n: int | None
    """Number of answers examined; None if withheld."""
    modes: dict[str, ModeCounts]


class SharesDocument(TypedDict):
    """`shares.json`."""

    hospital: str
    n: int | None
    """Number of answers explained; None if withheld."""
    methods: Means


class SeenCounts(TypedDict):
    """How many test images (or cases about them) a base was trained on; None if a count is withheld."""

    n: int | None
    """All of them."""
    seen: int | None
    """Those that are among the base's training images, or as good as the same as one."""
    identical: int | None
    """Those of them that are identical pixel for pixel."""
    at_least: int
    """`seen`; if it is withheld, the part of it that is told."""


class SeenOfDataset(TypedDict):
    """How many test images, and cases about them, a base was trained on."""

    images: SeenCounts
    cases: SeenCounts


class SeenDocument(SeenOfDataset):
    """`seen.json` of a hospital."""

    hospital: str
    record: str
    """sha256 of the base's record, in hexadecimal."""


class PrivacyDocument(TypedDict):
    """`privacy.json` after the rounds of a study."""

    hospital: str
    """`coordinator` where the unit is a hospital."""
    unit: str
    """`example`, `patient` or `hospital`."""
    units: int
    """How many there are."""
    rate: float
    """The chance of each to be in a step."""
    steps: int
    """Steps of a round."""
    clip: float
    sigma: float
    """Noise multiplier."""
    delta: float
    accountant: str
    rounds: int
    epsilon: float
    """After these rounds."""


@dataclass(frozen=True)
class SharedDocuments:
    """The documents that the hospitals of a study share about their answers, one of each kind per hospital."""

    scores: Sequence[ScoresDocument]
    reliance: Sequence[ScoresDocument] = ()
    """Scores with perturbed prompts; this and the fields below are empty if not measured."""
    failures: Sequence[FailuresDocument] = ()
    shares: Sequence[SharesDocument] = ()
    abstention: Sequence[AbstentionDocument] = ()
    seen: Sequence[SeenDocument] = ()
    gains: Sequence[GainDocument] = ()
    privacy: Sequence[PrivacyDocument] = ()
