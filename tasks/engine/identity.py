"""Which model a setting names and where it runs, found without loading the model or any heavy library."""

import ctypes
import importlib.util
import os
import time
from pathlib import Path
from typing import Literal

from tasks.engine.families.registry import PRESETS
from tasks.errors import StudyError
from tasks.settings import ModelChoice, ModelSettings
from tasks.store import MANIFEST, file_digest, files_below, tree_digest
from tasks.store.shipped import DATA

EMBEDDED = DATA / "base"
RECORD = "seen.parquet"
"""The record, in a base's folder, of the images that it was trained on. What the base computes does not depend on it,
so it is no part of the model's content: only the stages that read it run again when it changes."""
SETTLED_NS = 2 * 10**9
"""Nanoseconds after which a file that is written again certainly gets a new time stamp."""
State = tuple[tuple[str, int, int, int], ...]
_known: dict[Path, tuple[State, str]] = {}
"""Digests of folders, each with the state of its files at the time: a process reads a large model only once."""


def choose_model(settings: ModelSettings) -> ModelChoice:
    """The base that the settings name, with its present content, device and precision.

    Raises StudyError as `identify` does.
    """
    values = settings.model_dump(include=set(ModelSettings.model_fields))
    content = identify(settings.name, settings.revision)
    device = device_of(settings.device)
    chosen = {"device": device, "precision": precision_of(settings.precision, device)}
    return ModelChoice(**values | chosen, content=content)


def check_unchanged(model: ModelChoice) -> None:
    """Raise StudyError if the base's content is no longer that of the chosen model."""
    if identify(model.name, model.revision) != model.content:
        raise StudyError(
            f"Expected the model in {resolve(model.name)} to stay as it was when the work began, found it changed: "
            "run it again, with one model throughout."
        )


def device_of(setting: str) -> Literal["cpu", "cuda"]:
    """The device that a model runs on: `auto` is CUDA if torch finds a CUDA device, else the CPU."""
    if setting == "cpu" or (setting == "auto" and not _may_have_cuda()):
        return "cpu"
    if setting == "cuda":
        return "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def precision_of(
    setting: Literal["auto", "float32", "bfloat16"], device: Literal["cpu", "cuda"]
) -> Literal["float32", "bfloat16"]:
    """The type of a model's weights on a device: `auto` is bfloat16 on CUDA and float32 on the CPU."""
    if setting != "auto":
        return setting
    return "bfloat16" if device == "cuda" else "float32"


def _may_have_cuda() -> bool:
    """Whether torch must be imported to know: not if it was built without CUDA, nor if there is no driver."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    libraries = Path(torch.origin).parent / "lib"
    if any(libraries.glob("*torch_hip*")):  # AMD's ROCm, which torch calls CUDA too
        return True
    if not any(libraries.glob("*torch_cuda*")):
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def resolve(name: str) -> str:
    """The folder or hub id that `model.name` stands for.

    Raises StudyError if a short name is also the name of a model folder in the working directory.
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
    """An identifier of a model's content: the digest of a local folder, or the commit of a hub model.

    Raises StudyError if the folder holds no model, if the hub has no such model, if a folder is given a revision, and
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
        return _digest(folder)
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


def find_record(name: str) -> tuple[str, str] | None:
    """The path and the digest of the record of a base's training images; None if the base has none.

    Then what it has seen is unknown, as of every model of the hub.
    """
    path = Path(resolve(name)) / RECORD
    return (str(path), file_digest(path)) if path.is_file() else None


def _digest(folder: Path) -> str:
    """The digest of a model's folder, without the store's manifest, which holds times, and without its record."""
    files = [(path.relative_to(folder).as_posix(), path.stat()) for path in files_below(folder)]
    state = tuple(sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in files))
    place, now = folder.resolve(), time.time_ns()
    known = _known.get(place)
    if known and known[0] == state:
        return known[1]
    digest = tree_digest(folder, without=(MANIFEST, RECORD))
    if all(max(modified, changed) < now - SETTLED_NS for _, _, modified, changed in state):
        _known[place] = state, digest
    return digest


def _remedy(name: str) -> str:
    return PRESETS[name].remedy if name in PRESETS else "download it first and give its folder"
