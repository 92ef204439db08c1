"""Provenance of finished folders: manifests list their inputs, and a walk leads from results back to sources."""

import json
import os
from collections.abc import Iterable, Sequence

from tasks.errors import StudyError
from tasks.store.folders import ROOT, Ref, alone, find
from tasks.store.manifest import MANIFEST, Manifest


def name_inputs(path: str, inputs: Sequence[str]) -> None:
    """Update the inputs in a finished folder's manifest; does nothing if there is no readable manifest.

    A stage's key identifies its inputs by content. So a request with the same content at other paths finds the same
    folder, and the input paths recorded there may no longer exist. The manifest then gets the new paths as `inputs`,
    and keeps the others as `former_inputs`. All paths are relative to the artifacts.
    """
    place = ROOT / path
    try:
        recorded = find(path).manifest().get("inputs")
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: the stage will make it with these inputs
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
    """The inputs of a folder; with `former`, also its former inputs, which had the same content.

    Empty if the manifest is missing.
    """
    if not (ROOT / path / MANIFEST).is_file():
        return []
    manifest = find(path).manifest()
    return [*manifest.get("inputs", ()), *(manifest.get("former_inputs", ()) if former else ())]


def walk(results: Iterable[Ref]) -> dict[str, Manifest]:
    """The manifests of folders and of all their direct and indirect inputs, by path, inputs first.

    Raises StudyError if one of these folders is missing.
    """
    found: dict[str, Manifest] = {}
    opened: dict[str, Manifest] = {}
    waiting = [ref.path for ref in results][::-1]
    while waiting:
        path = waiting.pop()
        if path in opened:
            found.setdefault(path, opened[path])
            continue
        opened[path] = _manifest(path)
        waiting += [path, *(each for each in reversed(opened[path].get("inputs", [])) if each not in opened)]
    return found


def _manifest(path: str) -> Manifest:
    try:
        return find(path).manifest()
    except FileNotFoundError:
        raise StudyError(
            f"Expected the folder {ROOT / path}, which results of this run were made from, found none: "
            "run `fed-rag run` again, which makes anew what is missing."
        ) from None
