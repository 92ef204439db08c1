"""`comparison.json` as it is written (docs/comparison.md), and the score entries that `results.json` shares with it."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

Interval = list[float]
"""Both ends."""


class ScoreEntry(TypedDict):
    """A metric of one configuration, over all questions or those of one value of a group."""

    configuration: str
    measure: str
    """Name of the metric (`tasks.score.metrics`)."""
    group: str
    """`all`, or what the questions have in common."""
    value: str | None
    n: int
    images: int
    score: float
    interval: Interval | None
    interval_holds: str
    """Whose chance the interval holds."""
    by_seed: NotRequired[dict[str, float]]
    """Of `all` alone."""


class SplitScore(ScoreEntry):
    """A score on one split."""

    split: str


class McNemarTest(TypedDict):
    """McNemar's test of one seed: questions that one alone answers rightly."""

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
    """By seed; None where answers are not right or wrong."""
    p_holm: float | None


class SplitTest(PairedTest):
    """A test on one split."""

    split: str


class WorstHospital(TypedDict):
    """Of one configuration, the hospital with the fewest right answers."""

    configuration: str
    hospital: str | None
    n: int
    images: int
    score: float
    interval: Interval | None
    interval_holds: str
    below_all: float
    """How far its score lies below that of all hospitals together."""


class SplitWorst(WorstHospital):
    """The worst hospital on one split."""

    split: str


class Images(TypedDict):
    """How many images are asked about; one of several seeds counts once in `images`."""

    images: int
    images_by_seed: dict[str, int]


class SplitRow(Images):
    """A split: its title, and the one that puts every case where it does."""

    name: str
    title: str
    same_as: str | None


class ConfigurationRow(TypedDict):
    """A row of every table: what it is called, whether it was trained, what it changes in the base study."""

    name: str
    label: str
    trained: bool
    changes: Mapping[str, Any]
    twin: bool


class RelianceRow(TypedDict):
    """What a configuration keeps of its score with altered prompts, on one split."""

    split: str
    configuration: str
    n: int
    score: float
    kept: dict[str, float | None]
    """By alteration."""
    ignores_images: bool | None


class RoundLoss(TypedDict):
    """Losses of one round, the mean over seeds."""

    round: int
    train_loss: float
    eval_loss: float | None


class SweepPoint(TypedDict):
    """A point of a sweep: its settings, scores over all seeds, and losses by round."""

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
    """What training a configuration took: seconds and bytes of a round, memory of one hospital's process."""

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
    """Which run a study of the comparison is."""

    part: str
    name: str
    split: str
    seed: int
    run: str


class Withheld(TypedDict):
    """Values of groups that are not told of, by split and group."""

    min_cell: int
    groups: dict[str, dict[str, list[str]]]


class ComparisonDocument(TypedDict):
    """The whole file, in its order."""

    schema_version: int
    name: str
    reference: str
    seeds: list[int]
    splits: list[SplitRow]
    configurations: list[ConfigurationRow]
    scores: list[SplitScore]
    withheld: Withheld
    worst_hospitals: list[SplitWorst]
    tests: list[SplitTest]
    lightfed: list[dict[str, Any]]
    """`split`, `configuration`, LightFED's four metrics under their names (`F1-Score`), `by_seed`."""
    reliance: list[RelianceRow]
    sweeps: list[Sweep]
    cost: list[CostRow]
    runs: list[RunRow]
    settings: dict[str, Any]
    failed: Sequence[Mapping[str, str]]
