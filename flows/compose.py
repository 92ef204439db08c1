"""Composes a base of pretrained parts, in the folder where its preset looks for it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.files import writing_folder
from tasks.engine.families import llama_clip, smol_clip
from tasks.engine.families.composing import RECORD
from tasks.engine.families.registry import PRESETS
from tasks.engine.identity import identify
from tasks.errors import StudyError
from tasks.store import tree_digest

COMPOSED = ("smol-clip", "llama-clip")


@dataclass(frozen=True)
class Work:
    """What a base is composed of, and the function that writes it to a new folder."""

    record: dict[str, Any]
    write: Callable[[Path], object]


def compose(name: str, vision: Path | None, text: Path | None, out: Path | None) -> tuple[Path, str, bool]:
    """Write a composed base, completely or not at all.

    Args:
        name: one of `COMPOSED`.
        vision: folder of the vision tower; for llama-clip alone.
        text: folder of the text model; for llama-clip alone.
        out: folder to write; None for the preset's.

    Returns the folder, the digest of its content, and whether it was written now: a folder that was composed of the
    same parts is left as it is.

    Raises StudyError if a part is missing or of another kind, or if the folder holds anything else.
    """
    work = _work(name, vision, text)
    place = out or Path(PRESETS[name].place)
    anew = not _is_there(place, work.record)
    if anew:
        with writing_folder(place) as folder:
            work.write(folder)
            (folder / RECORD).write_text(json.dumps(work.record, indent=2) + "\n", encoding="utf-8")
    return place, identify(str(place), None), anew


def _work(name: str, vision: Path | None, text: Path | None) -> Work:
    if name not in COMPOSED:
        raise StudyError(f"Expected {' or '.join(COMPOSED)}, found {name!r}: choose one of these.")
    if name == "smol-clip":
        if vision or text:
            raise StudyError("Expected smol-clip without --vision and --text, which packages bring: leave them out.")
        return Work(smol_clip.record(), smol_clip.compose)
    if not vision or not text:
        raise StudyError("Expected --vision and --text for llama-clip, found only one or none: name both folders.")
    for part in (vision, text):
        if not part.is_dir():
            raise StudyError(f"Expected a downloaded model in the folder {part}, found no folder: name another.")
    parts = {"vision": {"sha256": tree_digest(vision)}, "text": {"sha256": tree_digest(text)}}
    return Work({"parts": parts}, lambda folder: llama_clip.compose(vision, text, folder))


def _is_there(place: Path, record: dict[str, Any]) -> bool:
    """Whether the folder is composed of the same parts. Raises StudyError if it holds anything else."""
    try:
        found = json.loads((place / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # `writing_folder` refuses one that is not empty
    if found != record:
        raise StudyError(
            f"Expected {place} to be composed of the same parts, found other versions in its {RECORD}: remove the "
            "folder, or name another with --out."
        )
    return True
