"""Erases a patient from a hospital's answers."""

from dataclasses import replace
from pathlib import Path

from tasks.cases.erasure import Counts, Erasers, Patient, rewrite_table
from tasks.records import Prediction, read_table
from tasks.store import Folder


def erase_predictions(old: Path, new: Folder, gone: Patient) -> Counts:
    """Remove answers to the patient's questions, answers copied from the patient, and mentions in other answers."""
    rows = read_table(old / "predictions.parquet", Prediction)
    kept = [row for row in rows if row.case_id not in gone.cases and not _is_copied(row, gone)]
    rest = [replace(row, neighbours=tuple(each for each in row.neighbours if each not in gone.cases)) for row in kept]
    mentions = sum(len(row.neighbours) for row in kept) - sum(len(row.neighbours) for row in rest)
    answers = rewrite_table(old, new, "predictions.parquet", Prediction, rest)
    return {"answers": answers, "mentions as a shown case": mentions}


def _is_copied(row: Prediction, gone: Patient) -> bool:
    return row.configuration == "copy_nearest" and bool(gone.cases.intersection(row.neighbours))


def erase_tuning(old: Path, new: Folder, gone: Patient) -> Counts:
    """Leave a tuning as it is: it holds four numbers and a count, and nothing of any case."""
    return {}


ERASERS: Erasers = {
    **dict.fromkeys(("predictions", "baselines", "reliance", "calibration"), erase_predictions),
    "tuning": erase_tuning,
}
