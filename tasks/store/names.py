"""Names that become paths. Those of settings, requests, runs and messages stay in the folder that they are put in."""

from tasks.errors import StudyError


def inside(name: str) -> str:
    """The name, a relative path with forward slashes, as it is.

    Raises StudyError if it could lead out of its folder on any system: if it is absolute, empty, or has `..`, a
    backslash, a colon or a zero byte in it.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(mark in name for mark in "\\:\0"):
        raise StudyError(
            f"Expected a name that stays in its folder, found {name!r}: take one without `..`, and no absolute path."
        )
    return name
