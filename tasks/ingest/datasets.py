"""The datasets by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tasks.errors import StudyError
from tasks.ingest import phantom, slake, vqa_rad
from tasks.ingest.source import Source, check
from tasks.ingest.split import make_test_split


def ingest(
    name: str, root: Path | None, language: str, frames: bool, test_fraction: float, images: int, seed: int
) -> Source:
    """Read or draw a dataset; see DatasetSettings for the arguments.

    A published dataset that came without test cases gets a test split whose images are in no other split.
    Raises StudyError for whatever is wrong with the files.
    """
    drawn: dict[str, Callable[[], Source]] = {
        "phantom": partial(phantom.read, images=images, seed=seed, public=False, test_fraction=test_fraction),
        "phantom-public": partial(phantom.read, images=images, seed=seed, public=True, test_fraction=test_fraction),
    }
    published: dict[str, Callable[[], Source]] = {
        "vqa-rad": partial(vqa_rad.read, root, frames=frames),
        "slake": partial(slake.read, root, language=language),
    }
    readers = drawn | published
    if name not in readers:
        raise StudyError(f"Expected dataset.name to be one of {', '.join(readers)}, found {name!r}: choose one.")
    source = readers[name]()
    check(source)
    if name in published and not any(case.split == "test" for case in source.cases):
        return _with_test_split(source, test_fraction, seed)
    return source


def _with_test_split(source: Source, fraction: float, seed: int) -> Source:
    cases = make_test_split(source.cases, fraction, seed)
    made = sum(case.split == "test" for case in cases)
    return replace(source, cases=cases, notes=source.notes | {"cases made into a test split": made})
