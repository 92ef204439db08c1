"""The tables of a comparison as text, made from its document."""

from dataclasses import replace

from tasks.compare.cells import SPLITS, find_score, holds, labels, score_cell
from tasks.compare.other_tables import cost_table, lightfed_table, reliance_tables, sweep_tables
from tasks.compare.paired_tables import paired_tables
from tasks.compare.seen import headline_note, split_note, sweep_note
from tasks.records.comparison import ComparisonDocument, SplitRow
from tasks.records.text_table import Table
from tasks.score.groups import GROUPS
from tasks.score.metrics import METRICS, compared_metrics, titled


def tables(document: ComparisonDocument) -> list[Table]:
    """All tables of a comparison's document, headline first."""
    found = []
    for split in document["splits"]:
        if split["same_as"] is None:
            name, title = split["name"], SPLITS[split["name"]]
            of_split = [
                _scores(document, split),
                *paired_tables(document, name, title),
                lightfed_table(document, name, title),
                _worst(document, split),
                *reliance_tables(document, name, title),
                *_groups(document, split),
            ]
            found += [_noted(table, split_note(document, name)) for table in of_split]
    for sweep, table in zip(document["sweeps"], sweep_tables(document), strict=True):
        found.append(_noted(table, sweep_note(document, sweep["name"], [each["label"] for each in sweep["points"]])))
    return [*found, *([cost_table(document)] if document["cost"] else [])]


def _noted(table: Table, note: str) -> Table:
    """The table with one more note."""
    return replace(table, note=f"{table.note} {note}".strip())


def side_by_side(document: ComparisonDocument) -> Table:
    """The headline of every split in one table."""
    splits, metrics = document["splits"], compared_metrics()
    headings = [f"{metric.heading}, {SPLITS[split['name']]}" for split in splits for metric in metrics]
    rows = [
        (
            each["label"],
            *(
                score_cell(find_score(document, split["same_as"] or split["name"], each["name"], metric.name))
                for split in splits
                for metric in metrics
            ),
        )
        for each in document["configurations"]
    ]
    same = [
        f"The {SPLITS[each['name']]} split moves no case: its figures are those of the {SPLITS[each['same_as']]} one."
        for each in splits
        if each["same_as"]
    ]
    return _noted(Table("Splits side by side", ("", *headings), tuple(rows), " ".join(same)), headline_note(document))


def _scores(document: ComparisonDocument, split: SplitRow) -> Table:
    counts = {metric: _question_count(document, split["name"], metric.name) for metric in titled(published=False)}
    metrics = [metric for metric, count in counts.items() if count]
    rows = [
        (
            each["label"],
            *(score_cell(find_score(document, split["name"], each["name"], metric.name)) for metric in metrics),
        )
        for each in document["configurations"]
    ]
    sizes = "; ".join(f"{metric.title} n = {counts[metric]}" for metric in metrics if metric.main)
    many = len(document["seeds"])
    seeds = f"Mean of {many} seeds, their test cases" if many > 1 else "Test cases of one seed"
    note = f"{seeds}: {sizes}; {split['images']} images. {split['title'].capitalize()}. {holds(document)}"
    headings = ("", *(metric.heading for metric in metrics))
    return Table(f"Scores, {SPLITS[split['name']]} split", headings, tuple(rows), note)


def _question_count(document: ComparisonDocument, split: str, metric: str) -> int:
    found = find_score(document, split, document["reference"], metric)
    return found["n"] if found else 0


def _worst(document: ComparisonDocument, split: SplitRow) -> Table:
    called, right = labels(document), METRICS["correct"]
    rows = [
        (
            called[row["configuration"]],
            str(row["hospital"]),
            str(row["n"]),
            right.text_with_interval(row["score"], row["interval"]),
            right.text(row["below_all"]),
        )
        for row in document["worst_hospitals"]
        if row["split"] == split["name"]
    ]
    return Table(
        f"Worst hospital, {SPLITS[split['name']]} split",
        ("", "hospital", "n", "right answers", "below all by"),
        tuple(rows),
    )


def _groups(document: ComparisonDocument, split: SplitRow) -> list[Table]:
    """A table for each group with more than one value."""
    return [
        Table(f"By {group.replace('_', ' ')}, {SPLITS[split['name']]} split", *found)
        for group in GROUPS
        if group != "kind" and (found := _group(document, split["name"], group))
    ]


def _group(
    document: ComparisonDocument, split: str, group: str
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], str] | None:
    """Headings, rows and note of a group's table; None where the group has fewer than two values."""
    columns = document["configurations"]
    entries = [entry for entry in document["scores"] if entry["split"] == split and entry["group"] == group]
    rows = []
    for value in dict.fromkeys(entry["value"] for entry in entries):
        for metric in compared_metrics():
            scores = [find_score(document, split, each["name"], metric.name, group, value) for each in columns]
            if count := next((entry["n"] for entry in scores if entry), 0):
                rows.append((str(value), metric.heading, str(count), *map(score_cell, scores)))
    if len({row[0] for row in rows}) < 2:
        return None
    headings = (group, "measure", "n", *(each["label"] for each in columns))
    few = document["withheld"]["groups"][split].get(group, ())
    note = f"Withheld, so that nothing is told of few cases: {', '.join(few)}." if few else ""
    return headings, tuple(rows), note
