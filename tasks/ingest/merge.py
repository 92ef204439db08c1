"""Several datasets as one: ids that do not collide, and no image in two of them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from tasks.ingest.source import Source
from tasks.records import Caption, Case, Image

Named = TypeVar("Named", Case, Caption)


def merge(sources: Mapping[str, Source]) -> Source:
    """The datasets together; image ids, groups and files of rejected rows begin with their dataset's name.

    VQA-RAD and MedPix 2.0 both took images from MedPix. A case or caption of such an image, or of its group, stays
    only in the first of the datasets, so that no split can part it.
    """
    merged = Source(cases=[], images=[])
    seen: set[str] = set()
    for name, source in sources.items():
        kept = _without(source, seen)
        seen |= {number for image in source.images if (number := _medpix_number(image.id))}
        if dropped := len(source.records) - len(kept.records):
            merged.notes[f"{name}: rows left out whose image or group is in another dataset too"] = dropped
        _append(merged, name, kept)
    return merged


def _medpix_number(image_id: str) -> str | None:
    match = re.search(r"synpic\d+", image_id)
    return match[0] if match else None


def _without(source: Source, seen: set[str]) -> Source:
    """The source without the images seen before and those of their groups."""

    def is_shared(record: Case | Caption) -> bool:
        return _medpix_number(record.image_id) in seen

    groups = {record.group for record in source.records if is_shared(record)} - {None}
    cases = [case for case in source.cases if not is_shared(case) and case.group not in groups]
    captions = [caption for caption in source.captions if not is_shared(caption) and caption.group not in groups]
    kept = replace(source, cases=cases, captions=captions)
    used = {record.image_id for record in kept.records}
    return replace(kept, images=[image for image in source.images if image.id in used])


def _append(merged: Source, name: str, source: Source) -> None:
    merged.cases.extend([replace(case, id=_own_id(name, case.id)) for case in _prefixed(name, source.cases)])
    merged.captions.extend(_prefixed(name, source.captions))
    merged.findings.extend([replace(each, image_id=f"{name}/{each.image_id}") for each in source.findings])
    merged.images.extend(
        [Image(f"{name}/{image.id}", image.data, image.width, image.height) for image in source.images]
    )
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


def _own_id(name: str, case_id: str) -> str:
    """Both parts of phantom call their cases `phantom:...`."""
    return f"{name}:{case_id.partition(':')[2]}"
