"""Withdrawn patients: a hospital keeps digests of their names and images, so that no later run uses them again."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tasks.cases.patients import bare
from tasks.records import Case
from tasks.store import ROOT

FORGOTTEN = "forgotten.json"


def name_digest(name: str) -> str:
    """The digest that is kept of a patient's or an image's name, in hexadecimal."""
    return hashlib.sha256(name.encode()).hexdigest()


def is_forgotten(case: Case, digests: Collection[str]) -> bool:
    """Whether the digests contain a case's patient or image, alone or combined with other datasets."""
    names = [name for name in (case.image_id, case.group) if name is not None]
    return bool(digests) and any(name_digest(name) in digests for name in (*names, *map(bare, names)))


def forgotten_at(hospital: Path) -> list[dict[str, Any]]:
    """The withdrawals listed in a hospital's folder, oldest first, with `digest`, `images`, `on` and `adapters`."""
    path = hospital / FORGOTTEN
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def all_digests() -> list[str]:
    """The digests of all hospitals' withdrawals: a simulation must not give a patient to another hospital."""
    rows = [row for path in sorted((ROOT / "hospitals").glob(f"*/{FORGOTTEN}")) for row in forgotten_at(path.parent)]
    return sorted({digest for row in rows for digest in (row["digest"], *row["images"])})
