"""What a run says of the test images that its base was trained on."""

from collections.abc import Sequence

from tasks.records.run_document import RunDocument, SeenOfRun
from tasks.records.shared_documents import SeenCounts, SeenDocument


def seen_of_run(shared: Sequence[SeenDocument]) -> SeenOfRun | None:
    """The `seen` of `results.json`, pooled from the hospitals' `seen.json`; None if the base has no record."""
    if not shared:
        return None
    return {
        "record": shared[0]["record"],
        "images": _pool([each["images"] for each in shared]),
        "cases": _pool([each["cases"] for each in shared]),
        "hospitals": {each["hospital"]: {"images": each["images"], "cases": each["cases"]} for each in shared},
    }


def _pool(counts: Sequence[SeenCounts]) -> SeenCounts:
    return {
        "n": _sum([each["n"] for each in counts]),
        "seen": _sum([each["seen"] for each in counts]),
        "identical": _sum([each["identical"] for each in counts]),
        "at_least": sum(each["at_least"] for each in counts),
    }


def _sum(counts: Sequence[int | None]) -> int | None:
    """The sum; None if a count is withheld."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def run_sentence(results: RunDocument) -> str:
    """`seen_sentence` of a run, from its `results.json`; runs before schema 6 tell nothing."""
    found = results.get("seen")
    return seen_sentence([found["images"]] if found else [])


def seen_sentence(images: Sequence[SeenCounts]) -> str:
    """The sentence that stands beside every table of scores; empty if the base has seen no test image.

    `images` are the counts of one run, or of runs that differ in their seed only; none where the base has no record.
    """
    exact = [each["seen"] for each in images if each["seen"] is not None]
    if not images or exact == [0] * len(images):
        return ""
    at_least = min(each["at_least"] for each in images)
    some = f"at least {at_least}" if at_least else "some"
    count = _span(exact) if len(exact) == len(images) else some
    sizes = [each["n"] for each in images if each["n"] is not None]
    of = f"{_span(sizes)} test images" if len(sizes) == len(images) else "test images"
    copies = "" if all(each["identical"] == each["seen"] is not None for each in images) else COPIES
    return f"The base was trained on {count} of the {of}{copies}: scores on them are no measure of new images."


COPIES = " or on images as good as the same"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
