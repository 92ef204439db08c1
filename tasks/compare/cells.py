"""Text of a comparison's figures: scores with their intervals, and what the intervals cover."""

from tasks.records.comparison import ComparisonDocument, ScoreEntry, SplitScore
from tasks.score.groups import HOLDS
from tasks.score.metrics import METRICS

SPLITS = {
    "none": "original",
    "image": "image-disjoint",
    "near_duplicate": "copy-disjoint",
    "patient": "patient-disjoint",
}
"""Names of the values of partition.disjoint in tables."""


def score_cell(entry: ScoreEntry | None) -> str:
    """A score with its interval; "" where there is none."""
    return "" if entry is None else METRICS[entry["measure"]].text_with_interval(entry["score"], entry["interval"])


def holds(document: ComparisonDocument) -> str:
    """A sentence that says which randomness the intervals cover."""
    several = len(document["seeds"]) > 1
    left_out = "" if several else ", for the one training as it is: what another training would give is not in them"
    return f"Intervals of 95 % hold the chance of {HOLDS[several]}{left_out}."


def labels(document: ComparisonDocument) -> dict[str, str]:
    """The label of each configuration in tables, by name."""
    return {each["name"]: each["label"] for each in document["configurations"]}


def find_score(
    document: ComparisonDocument, split: str, name: str, metric: str, group: str = "all", value: str | None = None
) -> ScoreEntry | None:
    """A configuration's score on a split, over all questions or those of one value of a group."""
    wanted = (split, name, metric, group, value)
    return next((entry for entry in document["scores"] if _place(entry) == wanted), None)


def _place(entry: SplitScore) -> tuple[str, str, str, str, str | None]:
    return entry["split"], entry["configuration"], entry["measure"], entry["group"], entry["value"]
