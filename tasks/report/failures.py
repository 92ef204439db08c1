"""Failure modes of answers, counted over hospitals."""

from collections.abc import Iterable, Sequence

from tasks.cases.small_groups import WITHHELD
from tasks.records.explanations import MEANINGS
from tasks.records.run_document import Failures, HospitalFailures, Mode
from tasks.records.shared_documents import FailuresDocument


def failure_table(configuration: str, shared: Sequence[FailuresDocument]) -> dict[str, Failures]:
    """By configuration: counts over all hospitals with the `meaning` of each mode, and each hospital's under
    `hospitals`.

    `shared` is each hospital's `failures.json`. Hospitals without examined answers, or that withhold their number, are
    left out; the result is empty where all are. A sum is None where one of the hospitals withholds its part.
    """
    of: dict[str, HospitalFailures] = {
        each["hospital"]: {"n": each["n"], "modes": each["modes"]} for each in shared if each["n"]
    }
    if not of:
        return {}
    modes: dict[str, Mode] = {
        mode: {
            "meaning": meaning,
            "cases": _sum(each["modes"][mode]["cases"] for each in of.values()),
            "of": _sum(each["modes"][mode]["of"] for each in of.values()),
        }
        for mode, meaning in MEANINGS.items()
    }
    return {configuration: {"n": sum(each["n"] for each in of.values()), "modes": modes, "hospitals": of}}


def _sum(counts: Iterable[int | None]) -> int | None:
    counts = list(counts)
    return None if None in counts else sum(count or 0 for count in counts)


def failure_rows(failures: Failures) -> list[tuple[str, ...]]:
    """A configuration's entry of `results["failures"]` as text: headings, then a row for each mode."""
    rows = [
        (
            mode.replace("_", " "),
            *(WITHHELD if count is None else str(count) for count in (row["cases"], row["of"])),
            row["meaning"],
        )
        for mode, row in failures["modes"].items()
    ]
    heading = "of 1 test case" if failures["n"] == 1 else f"of {failures['n']} test cases"
    return [(heading, "found", "where the rule applies", "rule"), *rows]
