"""What a folder in `shared` may hold, file by file: whatever its stage did not declare is refused.

A stage declares its files by name, each with a content. A `*` in a name stands for any text without a slash, such as a
hospital's name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from tasks.errors import StudyError
from tasks.store.folders import Folder
from tasks.store.manifest import MANIFEST


class Content(Protocol):
    """What one file may hold."""

    def undeclared(self, path: Path) -> Iterator[str]:
        """What a file holds that is not declared, in words that quote nothing of it: they go to logs."""


Files = Mapping[str, Content]
"""The files that a stage may write, by name relative to its folder."""


@dataclass(frozen=True)
class Document:
    """A JSON file with the fields of a TypedDict, of their types, and no others at any depth."""

    of: type

    def undeclared(self, path: Path) -> Iterator[str]:
        """Whether fields are missing, not declared, or of another type: pydantic's names of these faults."""
        try:
            TypeAdapter[Any](self.of).validate_json(path.read_bytes(), strict=True)
        except ValidationError as error:
            faults = sorted({each["type"] for each in error.errors(include_input=False, include_url=False)})
            yield f"values that {self.of.__name__} has not ({', '.join(faults)})"


@dataclass(frozen=True)
class Tensors:
    """A safetensors file: float32 tensors, and no metadata but that they are PyTorch's."""

    names: str
    """A regular expression that each tensor's whole name matches."""

    def undeclared(self, path: Path) -> Iterator[str]:
        """The metadata that is not declared, and how many tensors have another name or type."""
        try:
            with safe_open(path, "numpy") as file:
                metadata, names = file.metadata() or {}, list(file.keys())
                types = [file.get_slice(name).get_dtype() for name in names]
        except SafetensorError:
            yield "no safetensors file"
            return
        if metadata not in ({}, {"format": "pt"}):
            yield "metadata"
        if count := sum(re.fullmatch(self.names, name) is None for name in names):
            yield f"{count} tensors of other names"
        if count := sum(each != "F32" for each in types):
            yield f"{count} tensors of another type than float32"


@dataclass(frozen=True)
class Table:
    """A Parquet table with these columns, in this order, and no metadata."""

    columns: pa.Schema

    def undeclared(self, path: Path) -> Iterator[str]:
        """Whether the columns or the metadata are others."""
        try:
            columns, metadata = pq.read_schema(path), pq.read_metadata(path).metadata or {}
        except pa.ArrowInvalid:
            yield "no Parquet table"
            return
        if not columns.equals(self.columns, check_metadata=True):
            yield "other columns, or metadata"
        if extra := metadata.keys() - {b"ARROW:schema"}:
            yield f"{len(extra)} entries of metadata"


@dataclass(frozen=True)
class AdapterConfig:
    """PEFT's JSON file of an adapter's settings, with no fields but PEFT's own."""

    def undeclared(self, path: Path) -> Iterator[str]:
        """How many fields PEFT does not know."""
        from peft import LoraConfig

        try:
            found = TypeAdapter(dict[str, Any]).validate_json(path.read_bytes())
        except ValidationError:
            yield "no JSON object"
            return
        if extra := found.keys() - {field.name for field in fields(LoraConfig)}:
            yield f"{len(extra)} fields that are not PEFT's"


@dataclass(frozen=True)
class OfPublicData:
    """A file that was made without any hospital's cases; it is not looked into."""

    def undeclared(self, path: Path) -> Iterator[str]:
        """Nothing."""
        return iter(())


def refuse_undeclared(stage: str, folder: Folder, files: Files) -> None:
    """Raise StudyError if a folder holds anything that its stage did not declare, before it gets its name.

    A folder that holds anything of a hospital's cases may have no summary in its manifest.
    """
    if problems := list(_undeclared(folder, files)):
        raise StudyError(
            f"Expected the stage {stage} to write nothing but what it declares ({', '.join(files)}), found "
            f"{'; '.join(problems)}: nothing was stored. Declare it in the stage's `writes` and in docs/privacy.md, if "
            "it may leave a hospital."
        )


def _undeclared(folder: Folder, files: Files) -> Iterator[str]:
    for path in sorted(folder.path.rglob("*")):
        name = path.relative_to(folder.path).as_posix()
        if path.is_file() and name != MANIFEST:
            content = declared(name, files)
            if content is None:
                yield "another file"
            else:
                yield from (f"{path.name} with {problem}" for problem in content.undeclared(path))
    if folder.leaves and folder.summary:
        yield "a summary in its manifest"


def declared(name: str, files: Files) -> Content | None:
    """The declared content of a file; None if it is not declared."""
    for pattern, content in files.items():
        if name.count("/") == pattern.count("/") and fnmatchcase(name, pattern):
            return content
    return None
