"""The cache key of a stage, which names its folder."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.store.folders import Ref


def stage_key(stage: str, settings: Mapping[str, Any], inputs: Iterable[Ref], code: str) -> str:
    """The key of a stage: a digest of its settings, its inputs' content, its code's digest and the Python version."""
    content = {
        "stage": stage,
        "settings": settings,
        "inputs": [[ref.path.rsplit("/", 1)[0], ref.digest] for ref in inputs],
        "code": code,
        "python": sys.version_info[:2],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
