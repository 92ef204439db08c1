"""Erase a patient from a hospital's vision features."""

from dataclasses import replace
from pathlib import Path

from tasks.cases.erasure import Counts, Erasers, Patient
from tasks.store import Folder


def erase_features(old: Path, new: Folder, gone: Patient) -> Counts:
    """Rewrite the features without the rows of the patient's images."""
    from tasks.engine.vision import FEATURES, gather_features, load_features

    whole = load_features(old / FEATURES)
    kept = [image for image in whole.starts if image not in gone.images]
    if len(kept) == len(whole.starts):
        return {}
    if kept:
        rest = gather_features({image: (whole, image) for image in kept})
    else:
        rest = replace(whole, rows=whole.rows[:0].clone(), starts={}, grids={})
    new.write(FEATURES, rest.to_bytes())
    new.summary = new.summary | {"images": len(kept), "tokens": len(rest.rows)}
    return {"features of images": len(whole.starts) - len(kept)}


ERASERS: Erasers = {"features": erase_features}
