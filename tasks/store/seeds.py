"""Seeds that follow from what they are for."""

import hashlib
import json


def derived_seed(*parts: object) -> int:
    """A seed that follows from its parts alone, the same in every process: 0 to 2**31 - 1."""
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
