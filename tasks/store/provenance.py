"""What finished folders were made from: named in their manifests, and walked from results back to their sources."""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.errors import StudyError
from tasks.store.folders import MANIFEST, ROOT, Ref, alone, find


def name_inputs(path: str, inputs: Sequence[str]) -> None:
    """Write into a finished folder's manifest which folders it was asked for with; nothing where none can be read.

    A stage's key tells its inputs by their content. So a stage that is asked for with the same content at other paths
    finds the folder that it has, and the paths recorded there may be gone by now. The manifest then names the new ones
    as `inputs`, and keeps the others as `former_inputs`. All paths are relative to the artifacts.
    """
    place = ROOT / path
    try:
        recorded = find(path).manifest().get("inputs")
    except (OSError, ValueError, KeyError, TypeError):  # not made yet, or damaged: it is made with these
        return
    if recorded == list(inputs):
        return
    with alone(place.parent):
        manifest = find(path).manifest()
        former = set(inputs_of(path, former=True)) - set(inputs)
        manifest |= {"inputs": list(inputs), "former_inputs": sorted(former)}
        beside = place.parent / f".{place.name}.{os.getpid()}.tmp"
        beside.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.replace(place / MANIFEST)


def inputs_of(path: str, former: bool = False) -> list[str]:
    """The folders that a folder was made from, and those of the same content that it was made from before (`former`).

    Nothing where its manifest is gone.
    """
    if not (ROOT / path / MANIFEST).is_file():
        return []
    manifest = find(path).manifest()
    return [*manifest.get("inputs", ()), *(manifest.get("former_inputs", ()) if former else ())]


def walk(results: Iterable[Ref]) -> dict[str, dict[str, Any]]:
    """The manifests of folders and of all that these were made from, by path, each after those of its inputs.

    Raises StudyError where a folder on the way is gone.
    """
    found: dict[str, dict[str, Any]] = {}
    opened: dict[str, dict[str, Any]] = {}
    waiting = [ref.path for ref in results][::-1]
    while waiting:
        path = waiting.pop()
        if path in opened:
            found.setdefault(path, opened[path])
            continue
        opened[path] = _manifest(path)
        waiting += [path, *(each for each in reversed(opened[path].get("inputs", [])) if each not in opened)]
    return found


def _manifest(path: str) -> dict[str, Any]:
    try:
        return find(path).manifest()
    except FileNotFoundError:
        raise StudyError(
            f"Expected the folder {ROOT / path}, which results of this run were made from, found none: "
            "run `fed-rag run` again, which makes anew what is missing."
        ) from None
