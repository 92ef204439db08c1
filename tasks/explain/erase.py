"""A hospital's failure modes and maps without a patient."""

from pathlib import Path

from tasks.cases.erasure import Counts, Erasers, Patient, rewrite_table
from tasks.records import FailureModes, Saliency, Share, read_table
from tasks.store import Folder


def erase_failures(old: Path, new: Folder, gone: Patient) -> Counts:
    """Without the failure modes of answers to the patient's questions."""
    kept = [row for row in read_table(old / "failures.parquet", FailureModes) if row.case_id not in gone.cases]
    return {"failure modes of answers": rewrite_table(old, new, "failures.parquet", FailureModes, kept)}


def erase_saliency(old: Path, new: Folder, gone: Patient) -> Counts:
    """Shares hold numbers of whole prompts: another's answer keeps them though the patient's case was shown with it."""
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
