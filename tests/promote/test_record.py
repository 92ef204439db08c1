"""The record: added to, never changed without notice."""

import json
from pathlib import Path

import pytest

from tasks.errors import StudyError
from tasks.promote.record import append, place, read


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_entries_are_added_with_author_and_reason_and_bound_to_each_other() -> None:
    assert read() == []
    for number in range(3):
        append("override", f"reason {number}", run=f"run-{number}")
    found = read()
    assert [entry["run"] for entry in found] == ["run-0", "run-1", "run-2"]
    assert all(entry["by"] and entry["at"].endswith("Z") and entry["because"] for entry in found)
    assert len({entry["previous"] for entry in found}) == 3


@pytest.mark.parametrize("line", [0, 1])
@pytest.mark.parametrize("how", ["changed", "removed", "damaged"])
def test_a_line_that_was_changed_or_removed_is_noticed(line: int, how: str) -> None:
    for number in range(3):
        append("override", f"reason {number}")
    lines = place().read_text().splitlines()
    if how == "removed":
        del lines[line]
    else:
        lines[line] = "{" if how == "damaged" else json.dumps(json.loads(lines[line]) | {"because": "another"})
    place().write_text("\n".join(lines) + "\n")
    with pytest.raises(StudyError, match=r"promotions\.jsonl as it was written, found line \d"):
        read()
    with pytest.raises(StudyError, match="as it was written"):
        append("override", "more")
