"""Erases a patient from a hospital's encoded rows and library."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tasks.cases.erasure import Counts, Erasers, Patient, rewrite_table
from tasks.records import Case, Neighbour, read_table
from tasks.store import Folder, here


def erase_encoded(old: Path, new: Folder, gone: Patient) -> Counts:
    """Remove the rows of the patient's images, and of texts that no other case has."""
    from tasks.retrieve.encoded import ENCODED, Encoded, load_encoded
    from tasks.text.normalise import normalise

    whole = load_encoded(old / ENCODED)
    cases = [case for path in new.inputs for case in read_table(here(path) / "cases.parquet", Case)]
    others = [case for case in cases if case.id not in gone.cases]
    said = {case.question for case in others} | {normalise(case.answer) for case in others if case.split == "train"}
    images = [image for image in whole.image_places if image not in gone.images]
    texts = [text for text in whole.text_places if text in said]
    rest = Encoded(
        whole.images[[whole.image_places[image] for image in images]],
        whole.texts[[whole.text_places[text] for text in texts]],
        {image: place for place, image in enumerate(images)},
        {text: place for place, text in enumerate(texts)},
    )
    new.write(ENCODED, rest.to_bytes())
    new.summary = new.summary | {"images": len(images), "texts": len(texts)}
    return {
        "rows of images": len(whole.image_places) - len(images),
        "rows of texts": len(whole.text_places) - len(texts),
    }


def erase_library(old: Path, new: Folder, gone: Patient) -> Counts:
    """Remove the patient's cases from the index and the neighbours, and the patient's images from the copies."""
    from tasks.retrieve.library import read_library

    whole = read_library(old, mapped=False)
    copies = {
        image: rest
        for image, others in whole.copies.items()
        if image not in gone.images and (rest := [each for each in others if each not in gone.images])
    }
    held, known = len(whole.entries), sum(map(len, whole.copies.values()))
    smaller = replace(whole.removed(gone.cases), copies=copies)
    smaller.write(new.path)
    new.summary = new.summary | {"cases": len(smaller.entries)}
    near = _without(read_table(old / "neighbours.parquet", Neighbour), gone)
    return {
        "cases of the index": held - len(smaller.entries),
        "neighbours": rewrite_table(old, new, "neighbours.parquet", Neighbour, near),
        "copies": known - sum(map(len, copies.values())),
    }


def _without(neighbours: Iterable[Neighbour], gone: Patient) -> Iterator[Neighbour]:
    """The neighbours that do not involve the patient, in the same order; those further away move up in rank."""
    ranks: Counter[str] = Counter()
    for neighbour in neighbours:
        if neighbour.case_id not in gone.cases and neighbour.neighbour_id not in gone.cases:
            yield replace(neighbour, rank=ranks[neighbour.case_id])
            ranks[neighbour.case_id] += 1


ERASERS: Erasers = {"encoded": erase_encoded, "library": erase_library}
