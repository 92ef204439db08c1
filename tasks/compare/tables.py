"""The tables of a comparison, as text cells made of its document."""

from collections.abc import Mapping
from typing import Any

from tasks.compare.test_tables import GROUPED, holds, interval, paired_tables
from tasks.records.explanations import IGNORES
from tasks.records.text_table import Table

HEADLINE = {
    "closed_accuracy": "closed accuracy",
    "closed_f1": "closed F1",
    "open_exact_match": "open exact match",
    "open_f1": "F1",
    "open_bleu": "BLEU",
    "open_rouge_l": "ROUGE-L",
    "open_token_recall": "token recall",
}
SPLITS = {
    "none": "original",
    "image": "image-disjoint",
    "near_duplicate": "copy-disjoint",
    "patient": "patient-disjoint",
}
"""What values of partition.disjoint are called in tables."""
ALTERED = {
    "image_blank": "blank image",
    "image_noise": "noise",
    "image_swapped": "another image",
    "neighbours_removed": "no cases",
    "neighbours_shuffled": "others' cases",
    "neighbours_flipped": "wrong cases",
    "question_shuffled": "words shuffled",
}
"""Alterations of the prompt, as headings."""
LIGHTFED = ("Accuracy", "F1-Score", "BLEU", "ROUGE-L")


def tables(document: Mapping[str, Any]) -> list[Table]:
    """All tables of a comparison's document, headline first."""
    found = []
    for split in document["splits"]:
        if split["same_as"] is None:
            found += [
                _scores(document, split),
                *paired_tables(document, split["name"], SPLITS[split["name"]]),
                _lightfed(document, split),
                _worst(document, split),
                *_reliance(document, split),
                *_groups(document, split),
            ]
    return [*found, *_sweeps(document), *([_cost(document)] if document["cost"] else [])]


def side_by_side(document: Mapping[str, Any]) -> Table:
    """The headline of every split in one table."""
    splits = document["splits"]
    headings = [f"{title}, {SPLITS[split['name']]}" for split in splits for title in GROUPED.values()]
    rows = [
        (
            each["label"],
            *(
                _cell(_find(document, split["same_as"] or split["name"], each["name"], measure))
                for split in splits
                for measure in GROUPED
            ),
        )
        for each in document["configurations"]
    ]
    same = [
        f"The {SPLITS[each['name']]} split moves no case: its figures are those of the {SPLITS[each['same_as']]} one."
        for each in splits
        if each["same_as"]
    ]
    return Table("Splits side by side", ("", *headings), tuple(rows), " ".join(same))


def _find(document: Mapping[str, Any], split: str, name: str, measure: str, **where: Any) -> Mapping[str, Any] | None:
    wanted = {"split": split, "configuration": name, "measure": measure, "group": "all", "value": None} | where
    return next(
        (entry for entry in document["scores"] if all(entry[field] == value for field, value in wanted.items())), None
    )


def _cell(entry: Mapping[str, Any] | None) -> str:
    return "" if entry is None else f"{entry['score']:.3f}{interval(entry['interval'])}"


def _scores(document: Mapping[str, Any], split: Mapping[str, Any]) -> Table:
    measures = {each: title for each, title in HEADLINE.items() if _any(document, split["name"], each)}
    counts = {each: _any(document, split["name"], each) for each in measures}
    rows = [
        (each["label"], *(_cell(_find(document, split["name"], each["name"], measure)) for measure in measures))
        for each in document["configurations"]
    ]
    told = "; ".join(f"{title} n = {counts[each]}" for each, title in GROUPED.items() if each in counts)
    many = len(document["seeds"])
    seeds = f"Mean of {many} seeds, their test cases" if many > 1 else "Test cases of one seed"
    note = f"{seeds}: {told}; {split['images']} images. {split['title'].capitalize()}. {holds(document)}"
    return Table(f"Scores, {SPLITS[split['name']]} split", ("", *measures.values()), tuple(rows), note)


def _any(document: Mapping[str, Any], split: str, measure: str) -> int:
    found = _find(document, split, document["reference"], measure)
    return found["n"] if found else 0


def _lightfed(document: Mapping[str, Any], split: Mapping[str, Any]) -> Table:
    rows = [
        (
            each["label"],
            *("" if (value := row[metric]) is None else f"{value:.3f}" for metric in LIGHTFED),
        )
        for each in document["configurations"]
        for row in document["lightfed"]
        if row["split"] == split["name"] and row["configuration"] == each["name"]
    ]
    note = "LightFED's own rules, which credit some wrong answers: for comparison with its figures. Mean of the seeds."
    return Table(f"LightFED's metrics, {SPLITS[split['name']]} split", ("", *LIGHTFED), tuple(rows), note)


def _worst(document: Mapping[str, Any], split: Mapping[str, Any]) -> Table:
    labels = {each["name"]: each["label"] for each in document["configurations"]}
    rows = [
        (labels[row["configuration"]], row["hospital"], str(row["n"]), _cell(row), f"{row['below_all']:.3f}")
        for row in document["worst_hospitals"]
        if row["split"] == split["name"]
    ]
    return Table(
        f"Worst hospital, {SPLITS[split['name']]} split",
        ("", "hospital", "n", "right answers", "below all by"),
        tuple(rows),
    )


def _reliance(document: Mapping[str, Any], split: Mapping[str, Any]) -> list[Table]:
    """What is left of each configuration's score; no table where no prompts were altered."""
    labels = {each["name"]: each["label"] for each in document["configurations"]}
    found = [row for row in document["reliance"] if row["split"] == split["name"]]
    if not found:
        return []
    told = {True: "yes", False: "no", None: ""}
    rows = [
        (
            labels[row["configuration"]],
            *("" if (kept := row["kept"].get(name)) is None else f"{kept:.0%}" for name in ALTERED),
            told[row["ignores_images"]],
        )
        for row in found
    ]
    title = f"Does it look? {SPLITS[split['name']].capitalize()} split"
    note = (
        f"Share of its own score that is left, of {min(row['n'] for row in found)} questions of all seeds or more. "
        f"One that keeps {IGNORES:.0%} with a blank image is said to ignore images."
    )
    return [Table(title, ("", *ALTERED.values(), "ignores images"), tuple(rows), note)]


def _groups(document: Mapping[str, Any], split: Mapping[str, Any]) -> list[Table]:
    """A table for each kind of group with more than one value."""
    found = []
    columns = document["configurations"]
    for group in ("dataset", "modality", "organ", "topic", "hospital"):
        entries = [entry for entry in document["scores"] if entry["split"] == split["name"] and entry["group"] == group]
        rows = []
        for value in dict.fromkeys(entry["value"] for entry in entries):
            for measure, title in GROUPED.items():
                cells = [
                    _find(document, split["name"], each["name"], measure, group=group, value=value) for each in columns
                ]
                if any(cells):
                    count = str(next(cell["n"] for cell in cells if cell))
                    rows.append((str(value), title, count, *map(_cell, cells)))
        if len({row[0] for row in rows}) > 1:
            headings = (group, "measure", "n", *(each["label"] for each in columns))
            few = document["withheld"]["groups"][split["name"]].get(group, ())
            note = f"Withheld, so that nothing is told of few cases: {', '.join(few)}." if few else ""
            found.append(Table(f"By {group}, {SPLITS[split['name']]} split", headings, tuple(rows), note))
    return found


def _sweeps(document: Mapping[str, Any]) -> list[Table]:
    found = []
    for sweep in document["sweeps"]:
        rows = []
        for point in sweep["points"]:
            scores = {entry["measure"]: entry for entry in point["scores"]}
            last = point["rounds"][-1]
            held_out = "" if last["eval_loss"] is None else f"{last['eval_loss']:.3f}"
            counted = str(scores["correct"]["n"])
            rows.append(
                (
                    point["label"],
                    counted,
                    *(_cell(scores.get(each)) for each in GROUPED),
                    f"{last['train_loss']:.3f}",
                    held_out,
                )
            )
        headings = (sweep["name"], "n", *GROUPED.values(), "training loss", "held-out loss")
        found.append(
            Table(f"Sweep of {sweep['name']}", headings, tuple(rows), f"Configuration {sweep['configuration']}.")
        )
    return found


def _cost(document: Mapping[str, Any]) -> Table:
    rows = [
        (
            row["label"],
            "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e9:.2f}",
            "" if row["device_memory_bytes"] is None else f"{row['device_memory_bytes'] / 1e9:.2f}",
            f"{row['seconds_per_round']:.1f}",
            f"{row['bytes_down'] / 1e6:.2f}",
            f"{row['bytes_up'] / 1e6:.2f}",
        )
        for row in document["cost"]
    ]
    headings = ("", "peak memory, GB", "of the GPU, GB", "seconds a round", "MB down a round", "MB up a round")
    return Table(
        "What it took", headings, tuple(rows), "All hospitals together; adapters as files, nothing else travels."
    )
