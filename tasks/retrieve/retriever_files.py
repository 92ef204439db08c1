"""Saves and loads a retriever: its library, its encoder, its scorer, and the path of its cases' encoded rows."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tasks.records import Case
from tasks.retrieve.encoded import ENCODED, Encoded, Inputs, Pooled, load_encoded
from tasks.retrieve.fusion import FUSION, Fused
from tasks.retrieve.library_folder import open_library
from tasks.retrieve.rerank import Scorer
from tasks.retrieve.retriever import Retriever
from tasks.retrieve.similarity import Encoder, encoder_from_json, encoder_to_json
from tasks.store import Folder, Ref, here

ENCODER, SCORER, INPUTS = "encoder.json", "scorer.json", "inputs.json"


def write_retriever(folder: Folder, retriever: Retriever, encoded: Ref | None) -> None:
    """Write a retriever into a stage's folder.

    `encoded` is the folder with the encoded rows of its cases; None if they are compared by the base's features.
    """
    from safetensors.torch import save

    retriever.library.write(folder.path)
    encoder = retriever.encoder
    folder.write_json(ENCODER, encoder_to_json(encoder.encoder if isinstance(encoder, Fused) else encoder))
    folder.write_json(INPUTS, {"encoded": encoded.path if encoded else None})
    if isinstance(encoder, Fused):
        folder.write(FUSION, save(dict(encoder.state)))
    if retriever.scorer:
        folder.write_json(SCORER, asdict(retriever.scorer))


def open_retriever(
    folder: Path, cases: Mapping[str, Case], features: Pooled, depth: int, diversity: float
) -> Retriever:
    """Load the retriever from a library's folder, after verifying its files.

    Args:
        folder: a folder written by `write_retriever`.
        cases: the hospital's cases by id.
        features: the base's features of the hospital's images.
        depth: neighbours per query.
        diversity: the value that the library was built with.

    Raises StudyError if a file is missing or changed.
    """
    library = open_library(folder)
    encoder, inputs = open_library_encoder(folder), _open_inputs(folder, features)
    return Retriever(library, encoder, cases, inputs, depth, _open_scorer(folder), diversity)


def encoded_of(folder: Path) -> str | None:
    """The folder (relative to the artifacts) of the rows that a library was built from; None if built from features."""
    path: str | None = json.loads((folder / INPUTS).read_text(encoding="utf-8"))["encoded"]
    return path


def open_library_encoder(folder: Path) -> Encoder | Fused:
    """The encoder that a library was built with."""
    encoder = encoder_from_json(json.loads((folder / ENCODER).read_text(encoding="utf-8")))
    return fused_encoder(encoder, folder if (folder / FUSION).is_file() else None)


def fused_encoder(encoder: Encoder, folder: Path | None) -> Encoder | Fused:
    """The encoder with the fusion of a folder; the encoder unchanged if `folder` is None."""
    from safetensors.torch import load_file

    return Fused(encoder, load_file(folder / FUSION)) if folder else encoder


def _open_inputs(folder: Path, features: Pooled) -> Inputs:
    encoded = encoded_of(folder)
    return Inputs(features, load_encoded(here(encoded) / ENCODED) if encoded else Encoded())


def _open_scorer(folder: Path) -> Scorer | None:
    """The saved scorer; None if the library does not re-rank."""
    if not (folder / SCORER).is_file():
        return None
    first, second, third, fourth = json.loads((folder / SCORER).read_text(encoding="utf-8"))["weights"]
    return Scorer((first, second, third, fourth))
