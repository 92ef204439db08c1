"""The scores of configurations with intervals, over all questions and by group, and the groups that are withheld.

A score over several seeds is the mean of the seeds' scores, and its interval covers the randomness of training and of
the test images. One seed gives no estimate of the variation between trainings: its interval covers the images only.
"""

from collections.abc import Iterator, Sequence

from tasks.compare.aligned import Answers
from tasks.compare.trainings import over_trainings
from tasks.records.comparison import ScoreEntry, WorstHospital
from tasks.score.groups import GROUPS, HOLDS
from tasks.score.metrics import METRICS, Metric, main_metrics
from tasks.score.statistics import SEED, estimate, sums_by_cluster


def score_entries(name: str, answers: Answers, least: int) -> Iterator[ScoreEntry]:
    """A configuration's scores: each metric over all questions, then the main metrics for each group.

    Scores that would reveal something about fewer than `least` cases are left out, also those that would by
    subtraction.
    """
    kinds, _ = answers.publishable("kind", least)
    for metric in METRICS.values():
        if metric.kind is None or metric.kind in kinds:
            yield from _entry(name, answers, metric, "all", None)
    for group in GROUPS:
        reportable, by_kind = answers.publishable(group, least)
        for value in sorted(map(str, reportable)):
            for metric in main_metrics():
                if metric.kind is None or value in by_kind:
                    yield from _entry(name, answers, metric, group, value)


def _entry(name: str, answers: Answers, metric: Metric, group: str, value: str | None) -> Iterator[ScoreEntry]:
    """The score of one metric within one group; nothing where the group holds no question of the metric."""
    places = answers.chosen(metric, group, value)
    if not places:
        return
    columns = metric.columns([answers.rows[place] for place in places])
    images = [answers.images[place] for place in places]
    seeds = [answers.seeds[place] for place in places]
    found = over_trainings(columns, seeds, images, metric.statistic)
    several = len(found.by_seed) > 1
    # With one training the bootstrap is used: its interval stays within 0 and 1 by itself.
    sure = found if several else estimate(sums_by_cluster(columns, images), metric.statistic, SEED)
    entry: ScoreEntry = {
        "configuration": name,
        "measure": metric.name,
        "group": group,
        "value": value,
        "n": len(places),
        "images": len(set(images)),
        "score": found.value,
        "interval": sure.interval and [max(0.0, sure.interval[0]), min(1.0, sure.interval[1])],
        "interval_holds": HOLDS[several],
    }
    if group == "all":
        names = map(str, dict.fromkeys(seeds))
        entry["by_seed"] = dict(zip(names, found.by_seed, strict=True))
    yield entry


def withheld_values(answers: Answers, least: int) -> dict[str, list[str]]:
    """By group, the values that `score_entries` leaves out."""
    found = {}
    for group in GROUPS:
        values = {value for place in range(len(answers.rows)) if (value := answers.of(group, place))}
        if rest := sorted(values - answers.publishable(group, least)[0]):
            found[group] = rest
    return found


def worst_hospitals(entries: Sequence[ScoreEntry]) -> list[WorstHospital]:
    """For each configuration, the hospital with the lowest score, and its distance to the score of all hospitals.

    Withheld hospitals are left out.
    """
    found: list[WorstHospital] = []
    for name in dict.fromkeys(entry["configuration"] for entry in entries):
        scores = [entry for entry in entries if entry["configuration"] == name and entry["measure"] == "correct"]
        everywhere = next(entry for entry in scores if entry["group"] == "all")
        hospitals = [entry for entry in scores if entry["group"] == "hospital"]
        if not hospitals:
            continue
        worst = min(hospitals, key=lambda entry: (entry["score"], entry["value"]))
        found.append(
            {
                "configuration": name,
                "hospital": worst["value"],
                "n": worst["n"],
                "images": worst["images"],
                "score": worst["score"],
                "interval": worst["interval"],
                "interval_holds": worst["interval_holds"],
                "below_all": everywhere["score"] - worst["score"],
            }
        )
    return found
