"""Types of `results.json` (docs/pipeline.md)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from tasks.records.comparison import Interval, ScoreEntry
from tasks.records.explanations import Means
from tasks.records.shared_documents import ModeCounts, PrivacyDocument, SeenOfDataset

QuestionKind = Literal["closed", "choice", "open"]
"""Kinds of question that are scored separately; `choice` (multiple choice) is a part of `closed`."""


class Scores(TypedDict):
    """Pooled scores of one configuration, or of one hospital, by kind of question, with the number `n` of questions."""

    closed: dict[str, int | float | None]
    open: dict[str, int | float | None]
    choice: dict[str, int | float | None]
    withheld: NotRequired[list[str]]
    """Kinds of question that a hospital withholds; only for a hospital."""


class ConfigurationScores(Scores):
    """Scores over all hospitals, and of each hospital."""

    hospitals: dict[str, Scores]


class ReliabilityBin(TypedDict):
    """Answers with confidence in one interval of width 0.1: their number, and sums of confidence and score."""

    n: int
    confidence: float
    correct: float


class Calibration(TypedDict):
    """How well confidence predicts correctness."""

    n: int
    ece: float | None
    bins: list[ReliabilityBin]


class Details(TypedDict):
    """Score entries and calibration, besides the pooled scores."""

    scores: list[ScoreEntry]
    calibration: dict[str, Calibration]


class Figure(TypedDict):
    """A figure with its 95 % interval."""

    value: float
    interval: Interval | None


class AbstentionOfKind(TypedDict):
    """Counts and accuracy of one kind of question when unsure answers are withheld."""

    n: int
    answered: int
    accuracy: Figure | None
    accuracy_if_all_were_answered: Figure | None


class AbstentionFigures(TypedDict):
    """Figures on withheld answers, over all hospitals or of one hospital."""

    n: int
    image_coverage: Figure | None
    """The share of an image's questions that is answered, averaged over images."""
    coverage: Figure | None
    abstention_rate: float | None
    closed: AbstentionOfKind
    open: AbstentionOfKind


class Abstention(AbstentionFigures):
    """A study's figures on withheld answers, over all hospitals and of each hospital."""

    coverage_asked: float
    held_out_cases: dict[str, int | str]
    """By hospital."""
    held_out_images: dict[str, int | str]
    held_out_shown_in_training: bool
    hospitals: dict[str, AbstentionFigures]


class Perturbation(TypedDict):
    """Scores with one perturbation of the prompt."""

    meaning: str
    closed: float | None
    open: float | None
    score: float
    kept: float | None
    """The share of the unperturbed score that is left."""


class RelianceSummary(TypedDict):
    """How a configuration's score changes with each perturbation of the prompt."""

    n: int
    alterations: dict[str, Perturbation]
    ignores_images: bool | None
    sentence: str


class Reliance(RelianceSummary):
    """The summary over all hospitals, and of each hospital."""

    hospitals: dict[str, RelianceSummary]


class Mode(ModeCounts):
    """A failure mode over all hospitals, with its rule."""

    meaning: str


class HospitalFailures(TypedDict):
    """Failure modes of one hospital's answers."""

    n: int
    modes: dict[str, ModeCounts]


class Failures(TypedDict):
    """Failure modes over all hospitals, and of each hospital."""

    n: int
    modes: dict[str, Mode]
    hospitals: dict[str, HospitalFailures]


class HospitalShares(TypedDict):
    """Mean shares of the prompt's parts in one hospital's `n` explained answers."""

    n: int
    methods: Means


class SharesOfParts(HospitalShares):
    """Mean shares over all hospitals, and of each hospital."""

    hospitals: dict[str, HospitalShares]


class Gain(TypedDict):
    """Shares of right answers with the adapter for all and with the personal ones, and their difference."""

    n: int
    for_all: float | None
    """None, as the two below, where there is no test case or their number is withheld."""
    personal: float | None
    gain: Figure | None


class Personal(Gain):
    """What personal adapters bring: over all hospitals, and for each."""

    configuration: str
    hospitals: dict[str, Gain]
    worst: dict[str, str | None]
    """The hospital with the smallest share, `for_all` and `personal`."""


class WithheldOfRun(TypedDict):
    """What each hospital withholds, in words."""

    min_cell: int
    hospitals: dict[str, list[str]]


class SeenOfRun(SeenOfDataset):
    """The counts over all hospitals, and of each hospital."""

    record: str
    """sha256 of the base's record, in hexadecimal."""
    hospitals: dict[str, SeenOfDataset]


class PrivacyOfRun(TypedDict):
    """Differential privacy of the adapters; that of the run is the weakest of all hospitals'."""

    unit: str
    epsilon: float
    delta: float
    clip: float
    accountant: str
    rounds: int
    hospitals: dict[str, PrivacyDocument]
    """By who adds the noise: each hospital, or the coordinator."""


class StartOfRun(TypedDict):
    """The trained adapter that a run's first round started from."""

    run: str | None
    """The finished run whose adapter it is; None for one from outside."""
    folder: str | None
    """The name of the folder from outside; None for a run's."""
    path: str | None
    """The folder of the run's adapter, relative to the artifacts; None for one from outside."""
    adapter: str
    """sha256 of its tensors' file, in hexadecimal."""


class RunDocument(TypedDict):
    """The whole file, in the order of its fields."""

    schema_version: int
    run: str
    configurations: dict[str, ConfigurationScores]
    baselines: dict[str, ConfigurationScores]
    scores: list[ScoreEntry]
    calibration: dict[str, Calibration]
    abstention: Abstention | None
    rounds: Sequence[Mapping[str, Any]]
    reliance: Mapping[str, Reliance]
    failures: Mapping[str, Failures]
    saliency: Mapping[str, SharesOfParts]
    personal: Personal | None
    withheld: WithheldOfRun | None
    seen: SeenOfRun | None
    privacy: PrivacyOfRun | None
    dataset: Mapping[str, Any]
    partition: Mapping[str, Any]
    split: Mapping[str, Any]
    definitions: Mapping[str, Any]
    model: Mapping[str, Any]
    start: StartOfRun | None
    """None for a fresh adapter."""
    settings: Mapping[str, Any]
    timings_s: Mapping[str, float]
    peak_memory_bytes: int
