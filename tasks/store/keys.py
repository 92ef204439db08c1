"""The key of a stage, by which its folder is found again."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.store.folders import Ref


def stage_key(stage: str, settings: Mapping[str, Any], inputs: Iterable[Ref], code: str) -> str:
    """The key of a stage: a digest of its own settings, its inputs' contents, and the digest of the code it runs."""
    content = {
        "stage": stage,
        "settings": settings,
        "inputs": [[ref.path.rsplit("/", 1)[0], ref.digest] for ref in inputs],
        "code": code,
        "python": sys.version_info[:2],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
