"""Which of a hospital's test images have a copy in training: `copied.json` in the folder of its cases."""

import json
from pathlib import Path

COPIED = "copied.json"


def read_copied(cases: Path) -> frozenset[str] | None:
    """Ids of the test images with a copy among the training images of any hospital; None if none was looked for.

    `cases` is the folder of a hospital's cases. Folders of earlier versions have no such file.
    """
    path = cases / COPIED
    ids = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return None if ids is None else frozenset(ids)
