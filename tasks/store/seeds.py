"""Random seeds derived from what they are used for."""

import hashlib
import json


def derived_seed(*parts: object) -> int:
    """A seed from 0 to 2**31 - 1, derived only from its parts, the same in every process."""
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
