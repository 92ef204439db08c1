"""Small JSON files that a hospital must not forget: what they note cannot be taken back."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_note(path: Path) -> dict[str, Any]:
    """The document in a file; {} if there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_note(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file whole, and be sure that it is on the disk."""
    beside = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside.open("w", encoding="utf-8") as sink:
        json.dump(document, sink)
        sink.flush()
        os.fsync(sink.fileno())
    beside.replace(path)
