"""Types of `comparison.json` (docs/comparison.md), and of the score entries that `results.json` also has."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

Interval = list[float]
"""Lower and upper end."""


class ScoreEntry(TypedDict):
    """A metric of one configuration, over all questions or over those with one value of a group."""

    configuration: str
    measure: str
    """Name of the metric (`tasks.score.metrics`)."""
    group: str
    """`all`, or the property by which questions are grouped."""
    value: str | None
    n: int
    images: int
    score: float
    interval: Interval | None
    interval_holds: str
    """The sources of chance that the interval covers."""
    by_seed: NotRequired[dict[str, float]]
    """Only for the group `all`."""


class SplitScore(ScoreEntry):
    """A score on one split."""

    split: str


class McNemarTest(TypedDict):
    """McNemar's test for one seed: counts of the questions that only one configuration answers correctly."""

    only_a: int
    only_b: int
    p: float
    p_holm: float | None


class PairedTest(TypedDict):
    """The difference of two configurations in one metric, a minus b."""

    measure: str
    a: str
    b: str
    n: int
    images: int
    difference: float
    interval: Interval | None
    interval_holds: str
    p: float | None
    by_seed: dict[str, float]
    mcnemar: dict[str, McNemarTest] | None
    """By seed; None if the metric does not judge answers as right or wrong."""
    p_holm: float | None


class SplitTest(PairedTest):
    """A test on one split."""

    split: str


class WorstHospital(TypedDict):
    """The hospital with the lowest share of correct answers, for one configuration."""

    configuration: str
    hospital: str | None
    n: int
    images: int
    score: float
    interval: Interval | None
    interval_holds: str
    below_all: float
    """How far its score is below the score of all hospitals together."""


class SplitWorst(WorstHospital):
    """The worst hospital on one split."""

    split: str


class Images(TypedDict):
    """How many images the test questions are about; an image in several seeds counts once in `images`."""

    images: int
    images_by_seed: dict[str, int]


class SplitRow(Images):
    """A split: its title, and the split that assigns every case in the same way, if there is one."""

    name: str
    title: str
    same_as: str | None


class ConfigurationRow(TypedDict):
    """A configuration, one row of every table: its name, whether it is trained, its changes to the base study."""

    name: str
    label: str
    trained: bool
    changes: Mapping[str, Any]
    twin: bool


class RelianceRow(TypedDict):
    """The share of its score that a configuration keeps with perturbed prompts, on one split."""

    split: str
    configuration: str
    n: int
    score: float
    kept: dict[str, float | None]
    """By perturbation."""
    ignores_images: bool | None


class RoundLoss(TypedDict):
    """Losses of one round, averaged over seeds."""

    round: int
    train_loss: float
    eval_loss: float | None


class SweepPoint(TypedDict):
    """A point of a sweep: its settings, its scores over all seeds, and its losses by round."""

    label: str
    changes: Mapping[str, Any]
    local_epochs: int
    seeds: list[int]
    scores: list[ScoreEntry]
    rounds: list[RoundLoss]


class Sweep(TypedDict):
    """A sweep over settings of one configuration."""

    name: str
    configuration: str
    points: list[SweepPoint]


class CostRow(TypedDict):
    """The cost of training a configuration: seconds and bytes per round, and memory of one hospital's process."""

    configuration: str
    label: str
    model: str
    hospitals: int
    seconds_per_round: float
    bytes_down: float
    bytes_up: float
    peak_memory_bytes: int | None
    device_memory_bytes: int | None


class RunRow(TypedDict):
    """The run of one study of the comparison."""

    part: str
    name: str
    split: str
    seed: int
    run: str


class Withheld(TypedDict):
    """Group values whose scores are withheld, by split and group."""

    min_cell: int
    groups: dict[str, dict[str, list[str]]]


class SeenRow(TypedDict):
    """Runs whose base was trained on some of their test images, and the sentence that says so."""

    part: str
    """`configurations`, or a sweep's name."""
    split: str
    names: list[str]
    """Names of configurations, or labels of a sweep's points."""
    sentence: str


class ComparisonDocument(TypedDict):
    """The whole file, in the order of its fields."""

    schema_version: int
    name: str
    reference: str
    seeds: list[int]
    splits: list[SplitRow]
    configurations: list[ConfigurationRow]
    scores: list[SplitScore]
    withheld: Withheld
    seen: list[SeenRow]
    worst_hospitals: list[SplitWorst]
    tests: list[SplitTest]
    lightfed: list[dict[str, Any]]
    """Rows of `split`, `configuration`, LightFED's four metrics by name (such as `F1-Score`), and `by_seed`."""
    reliance: list[RelianceRow]
    sweeps: list[Sweep]
    cost: list[CostRow]
    runs: list[RunRow]
    settings: dict[str, Any]
    failed: Sequence[Mapping[str, str]]
