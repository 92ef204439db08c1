"""Erases a patient from a hospital's failure modes, maps and shares."""

from pathlib import Path

from tasks.cases.erasure import Counts, Erasers, Patient, rewrite_table
from tasks.records import FailureModes, Saliency, Share, read_table
from tasks.store import Folder


def erase_failures(old: Path, new: Folder, gone: Patient) -> Counts:
    """Remove the failure modes of answers to the patient's questions."""
    kept = [row for row in read_table(old / "failures.parquet", FailureModes) if row.case_id not in gone.cases]
    return {"failure modes of answers": rewrite_table(old, new, "failures.parquet", FailureModes, kept)}


def erase_saliency(old: Path, new: Folder, gone: Patient) -> Counts:
    """Remove the patient's maps, and the shares of answers to the patient's questions.

    Other answers keep their shares, even if the patient's case was in the prompt: shares are sums over whole prompts.
    """
    maps = [
        row
        for row in read_table(old / "saliency.parquet", Saliency)
        if row.case_id not in gone.cases and row.image_id not in gone.images
    ]
    shares = [row for row in read_table(old / "shares.parquet", Share) if row.case_id not in gone.cases]
    return {
        "maps": rewrite_table(old, new, "saliency.parquet", Saliency, maps),
        "shares": rewrite_table(old, new, "shares.parquet", Share, shares),
    }


ERASERS: Erasers = {"failures": erase_failures, "saliency": erase_saliency}
