"""Types of the JSON files that leave a hospital, which their stages are held to (docs/privacy.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from tasks.records.explanations import Means


@with_config(ConfigDict(extra="forbid"))
class SharedDocument(TypedDict):
    """A document that may have no other fields than those of its type, nor may what is within it."""


class UpdateDocument(SharedDocument):
    """`update.json`, beside the tensors that a hospital trained in a round."""

    hospital: str
    """`together` where it is the sum of all hospitals' updates."""
    round: int
    samples: int
    """Training cases in one epoch."""
    loss: float | None
    """Mean training loss per answer token; None if it was not finite."""
    steps: int
    base: str
    """Content of the base; empty for the gated fusion, which has none."""


class RoundDocument(SharedDocument):
    """`round.json`, beside the tensors that the server made of a round's updates."""

    round: int
    train_loss: float
    samples: dict[str, int]
    """By hospital whose update was used."""
    quarantined: dict[str, str]
    """By hospital whose update was left out, the reason."""
    lost_share: NotRequired[dict[str, float]]
    """By rule, the share of the update that a mean of LoRA's factors loses; not of the gated fusion."""


class ValidationDocument(SharedDocument):
    """`validation.json`."""

    hospital: str
    round: int
    loss: float
    """Mean loss per answer token on held-out training cases; 0 if it is withheld, as `tokens` is."""
    tokens: int


class FootprintDocument(SharedDocument):
    """`footprint.json`: the peak memory of a process that trains, in bytes."""

    hospital: str
    peak_memory_bytes: int
    device_memory_bytes: int | None
    """Of a GPU; None without one."""


class ClosedCounts(TypedDict):
    """Counts of closed questions."""

    n: int
    correct: int
    confusion: list[tuple[str, str, int]]
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


class ScoresDocument(SharedDocument):
    """`scores.json`."""

    hospital: str
    tallies: dict[str, TallyDocument]
    """By configuration."""
    withheld: WithheldScores
    calibration: NotRequired[dict[str, list[list[float]]]]
    """By configuration of a model, for each reliability bin: the count, and sums of confidence and score."""


Withheld = Literal["withheld"]
"""In place of a count of few."""


class AbstentionDocument(SharedDocument):
    """`abstention.json`."""

    hospital: str
    held_out_cases: int | Withheld
    held_out_images: int | Withheld
    images: list[list[float]]
    """For each image, the sums of `tasks.records.abstention`, by kind and column."""
    withheld: list[str]


class GainDocument(SharedDocument):
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


class FailuresDocument(SharedDocument):
    """`failures.json`."""

    hospital: str
    n: int | None
    """Number of answers examined; None if withheld."""
    modes: dict[str, ModeCounts]


class SharesDocument(SharedDocument):
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


class SeenDocument(SharedDocument, SeenOfDataset):
    """`seen.json` of a hospital."""

    hospital: str
    record: str
    """sha256 of the base's record, in hexadecimal."""


class BudgetDocument(SharedDocument):
    """`privacy.json` before the rounds of a study."""

    hospital: str
    """`coordinator` where the unit is a hospital."""
    unit: Literal["example", "patient", "hospital"]
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
    """How many may be; after the rounds, how many there were."""


class PrivacyDocument(BudgetDocument):
    """`privacy.json` after the rounds of a study."""

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


class ToldDocument(SharedDocument):
    """`hospital.json`: what a hospital on a machine of its own told when it joined."""

    hospital: str
    data: str
    """Digest of its cases, features and library, made with a secret of the hospital."""


class UsedDocument(SharedDocument):
    """`used.json`: the rounds in which the update of a hospital on a machine of its own counted (SCAFFOLD)."""

    hospital: str
    rounds: Sequence[int]


class TrainedDocument(SharedDocument):
    """`trained.json`: what a hospital on a machine of its own tells of an update that it does not send."""

    hospital: str
    round: int
    update: str
    """Digest of the update, made with a secret of the hospital."""
    key: str
    """Public key by which it signs in secure sums, in hexadecimal."""
