"""Which model a setting names, told without loading it (or anything heavy)."""

import os
from pathlib import Path

from tasks.engine.families.registry import PRESETS
from tasks.errors import StudyError
from tasks.store import tree_digest

EMBEDDED = Path(__file__).parents[2] / "data" / "base"


def resolve(name: str) -> str:
    """The folder or hub id that `model.name` stands for.

    Raises StudyError for a short name that is the name of a model's folder here as well.
    """
    place = str(EMBEDDED) if name == "embedded" else PRESETS[name].place if name in PRESETS else None
    if place is None:
        return name
    if (Path(name) / "config.json").is_file():
        raise StudyError(
            f"Expected model.name to be one model, found {name!r}, which is short for {place} and a folder here: "
            f"set it to ./{name} for the folder, or rename the folder."
        )
    return place


def identify(name: str, revision: str | None) -> str:
    """What tells a model's content: the digest of a local folder, or the commit of a hub model.

    Raises StudyError where the folder holds no model or the hub has none of that name, for a revision of a folder, and
    as `resolve` does.
    """
    place = resolve(name)
    folder = Path(place)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise StudyError(f"Expected a Hugging Face model folder at {folder}, found no config.json in it.")
        if revision is not None:
            raise StudyError(
                f"Expected no model.revision for a model in a folder, which has one, found {revision!r} for {folder}: "
                "leave it out."
            )
        return tree_digest(folder)
    from transformers.utils.hub import cached_file

    try:
        config = cached_file(place, "config.json", revision=revision)
    except (OSError, ValueError):
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise StudyError(
            f"Expected model.name to be a preset, a local Hugging Face folder or a hub id, found {name!r}, which is no "
            f"folder and could not be had from the hub{offline}: {_remedy(name)}."
        ) from None
    return f"{place}@{Path(str(config)).parent.name}"


def _remedy(name: str) -> str:
    return PRESETS[name].remedy if name in PRESETS else "download it first and give its folder"
