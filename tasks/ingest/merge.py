"""Merges several datasets into one, with unique ids."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from tasks.ingest.images import Images
from tasks.ingest.source import Source
from tasks.records import Caption, Case

Named = TypeVar("Named", Case, Caption)


def merge(sources: Mapping[str, Source]) -> Source:
    """Merge datasets; image ids, groups and files of rejected rows are prefixed with the dataset's name.

    Images that datasets share stay in both: the audit counts them, and `partition.disjoint` separates them.
    """
    merged = Source(cases=[], images=Images())
    for name, source in sources.items():
        _append(merged, name, source)
    return replace(merged, unused=tuple(column for source in sources.values() for column in source.unused))


def _append(merged: Source, name: str, source: Source) -> None:
    merged.cases.extend([replace(case, id=_renamed_id(name, case.id)) for case in _prefixed(name, source.cases)])
    merged.captions.extend(_prefixed(name, source.captions))
    merged.findings.extend([replace(each, image_id=f"{name}/{each.image_id}") for each in source.findings])
    for image in source.images:
        merged.images.append(replace(image, id=f"{name}/{image.id}"))
    merged.rejected.extend([replace(each, file=f"{name}/{each.file}") for each in source.rejected])
    merged.notes.update({f"{name}: {note}": count for note, count in source.notes.items()})
    merged.revisions.update(source.revisions)


def _prefixed(name: str, records: Iterable[Named]) -> list[Named]:
    return [
        replace(
            record,
            image_id=f"{name}/{record.image_id}",
            group=f"{name}/{record.group}" if record.group else None,
        )
        for record in records
    ]


def _renamed_id(name: str, case_id: str) -> str:
    """Replace the prefix of a case id by the dataset's name: both parts of phantom use `phantom:...`."""
    return f"{name}:{case_id.partition(':')[2]}"
