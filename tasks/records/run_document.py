"""`results.json` as it is written (docs/pipeline.md)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from tasks.records.comparison import Interval, ScoreEntry
from tasks.records.explanations import Means
from tasks.records.shared_documents import ModeCounts

QuestionKind = Literal["closed", "choice", "open"]
"""Whose scores stand apart; multiple choice is a part of the closed questions."""


class Scores(TypedDict):
    """Pooled scores of one configuration, or of one hospital: by kind of question, beside the number `n`."""

    closed: dict[str, int | float | None]
    open: dict[str, int | float | None]
    choice: dict[str, int | float | None]
    withheld: NotRequired[list[str]]
    """Of a hospital: kinds of question of which it tells nothing."""


class ConfigurationScores(Scores):
    """The same over all hospitals, and of each."""

    hospitals: dict[str, Scores]


class ReliabilityBin(TypedDict):
    """Answers whose confidence lies in one tenth: their number, and sums of confidence and score."""

    n: int
    confidence: float
    correct: float


class Calibration(TypedDict):
    """How well confidence tells what is right."""

    n: int
    ece: float | None
    bins: list[ReliabilityBin]


class Details(TypedDict):
    """What stands beside the pooled scores."""

    scores: list[ScoreEntry]
    calibration: dict[str, Calibration]


class Figure(TypedDict):
    """A figure with its 95 % interval."""

    value: float
    interval: Interval | None


class AbstentionOfKind(TypedDict):
    """Withheld answers of one kind of question."""

    n: int
    answered: int
    accuracy: Figure | None
    accuracy_if_all_were_answered: Figure | None


class AbstentionFigures(TypedDict):
    """Withheld answers of all hospitals, or of one."""

    n: int
    image_coverage: Figure | None
    """The mean over images of the share of their questions that is answered."""
    coverage: Figure | None
    abstention_rate: float | None
    closed: AbstentionOfKind
    open: AbstentionOfKind


class Abstention(AbstentionFigures):
    """What a study says of withheld answers."""

    coverage_asked: float
    held_out_cases: dict[str, int | str]
    """By hospital."""
    held_out_images: dict[str, int | str]
    held_out_shown_in_training: bool
    hospitals: dict[str, AbstentionFigures]


class Alteration(TypedDict):
    """Scores with one alteration of the prompt."""

    meaning: str
    closed: float | None
    open: float | None
    score: float
    kept: float | None
    """Share of the unaltered score that is left."""


class RelianceSummary(TypedDict):
    """What a configuration's score depends on."""

    n: int
    alterations: dict[str, Alteration]
    ignores_images: bool | None
    sentence: str


class Reliance(RelianceSummary):
    """The same over all hospitals, and of each."""

    hospitals: dict[str, RelianceSummary]


class Mode(ModeCounts):
    """A failure mode over all hospitals, with its rule."""

    meaning: str


class HospitalFailures(TypedDict):
    """Failure modes of one hospital's answers."""

    n: int
    modes: dict[str, ModeCounts]


class Failures(TypedDict):
    """Failure modes over all hospitals, and of each."""

    n: int
    modes: dict[str, Mode]
    hospitals: dict[str, HospitalFailures]


class HospitalShares(TypedDict):
    """Where answers of one hospital come from."""

    n: int
    methods: Means


class SharesOfParts(HospitalShares):
    """The same over all hospitals, and of each."""

    hospitals: dict[str, HospitalShares]


class WithheldOfRun(TypedDict):
    """What hospitals withhold, in words."""

    min_cell: int
    hospitals: dict[str, list[str]]


class RunDocument(TypedDict):
    """The whole file, in its order."""

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
    withheld: WithheldOfRun | None
    dataset: Mapping[str, Any]
    partition: Mapping[str, Any]
    split: Mapping[str, Any]
    definitions: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    timings_s: Mapping[str, float]
    peak_memory_bytes: int
