"""Erase a patient from a hospital's cases and images."""

from pathlib import Path

from tasks.cases.erasure import Counts, Erasers, Patient, rewrite_table
from tasks.records import Case, Finding, Image, ImagePair, read_findings, read_images, read_table
from tasks.records.copied import COPIED, read_copied
from tasks.store import Folder


def erase_cases(old: Path, new: Folder, gone: Patient) -> Counts:
    """Rewrite the folder without the patient's cases, images, masks of findings, and copies of them."""
    kept = [case for case in read_table(old / "cases.parquet", Case) if case.id not in gone.cases]
    images = (image for image in read_images(old / "images.parquet") if image.id not in gone.images)
    pairs = read_table(old / "copies.parquet", ImagePair)
    parted = [pair for pair in pairs if pair.image_a not in gone.images and pair.image_b not in gone.images]
    if (copied := read_copied(old)) is not None:
        new.write_json(COPIED, sorted(copied - gone.images))
    new.summary = new.summary | {"test_choices": sum(case.split == "test" and bool(case.options) for case in kept)}
    return {
        "cases": rewrite_table(old, new, "cases.parquet", Case, kept),
        "images": rewrite_table(old, new, "images.parquet", Image, images),
        "masks of findings": _masks(old, new, gone),
        "pairs of copies": rewrite_table(old, new, "copies.parquet", ImagePair, parted),
    }


def _masks(old: Path, new: Folder, gone: Patient) -> int:
    """Rewrite the masks of findings; folders of earlier versions have none. Returns how many are removed."""
    if not (old / "findings.parquet").exists():
        return 0
    kept = (mask for mask in read_findings(old / "findings.parquet") if mask.image_id not in gone.images)
    return rewrite_table(old, new, "findings.parquet", Finding, kept)


ERASERS: Erasers = {"cases": erase_cases}
