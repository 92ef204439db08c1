"""Who takes part in each round, by settings, seed and record."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.errors import StudyError
from tasks.federate.participation import Participation, read_participation, record
from tasks.settings import ParticipationSettings

NAMES = [f"hospital-{number}" for number in range(1, 9)]


def taking_part(rounds: int = 4, seed: int = 0, names: list[str] = NAMES, **settings: Any) -> Participation:
    return Participation(ParticipationSettings(**settings), names, rounds, seed)


def test_by_default_all_take_part_and_more_than_half_have_to_answer() -> None:
    everyone = taking_part()
    assert all(everyone.asked(number) == everyone.members(number) == NAMES for number in range(1, 5))
    assert everyone.least(1) == 5 and taking_part(names=NAMES[:2]).least(1) == 2


@given(st.integers(1, 12), st.floats(0.01, 1), st.integers(0, 99))
def test_a_share_of_the_hospitals_is_asked_and_the_same_again_by_the_same_seed(
    count: int, fraction: float, seed: int
) -> None:
    names = [f"h{number}" for number in range(count)]
    some, again = (taking_part(3, seed, names, fraction=fraction) for _ in range(2))
    for number in (1, 2, 3):
        asked = some.asked(number)
        assert asked == again.asked(number) == [name for name in names if name in asked]
        assert len(asked) == max(1, round(fraction * count))


def test_each_hospital_is_asked_as_often_as_the_others() -> None:
    """Over 2,000 rounds of 3 of 8: the expected 750 within five standard deviations of the binomial."""
    drawn = taking_part(2000, participants=3)
    counts = Counter(name for number in range(1, 2001) for name in drawn.asked(number))
    deviation = (2000 * 3 / 8 * 5 / 8) ** 0.5
    assert all(abs(counts[name] - 750) < 5 * deviation for name in NAMES)
    assert drawn.asked(1) != drawn.asked(2) or drawn.asked(2) != drawn.asked(3)
    assert [drawn.asked(n) for n in range(1, 9)] != [taking_part(8, 1, participants=3).asked(n) for n in range(1, 9)]


def test_members_are_those_who_have_joined_and_not_left() -> None:
    some = taking_part(joins={"hospital-2": 3}, leaves={"hospital-1": 2, "hospital-2": 3})
    assert [name in some.members(n) for n in range(1, 5) for name in NAMES[:2]] == [
        True, False, True, False, False, True, False, False
    ]  # fmt: skip
    assert "hospital-2" in some.receivers(2) and "hospital-2" not in some.receivers(1)
    assert "hospital-1" in some.receivers(2) and "hospital-1" not in some.receivers(3)


def test_a_record_is_replayed_as_it_was(tmp_path: Path) -> None:
    drawn = taking_part(participants=3)
    rows = [{"round": n, "asked": drawn.asked(n), "missing": {}} for n in range(1, 5)]
    rows[1]["missing"] = {drawn.asked(2)[0]: "MemoryError"}
    path = tmp_path / "participation.json"
    path.write_text(json.dumps(record(rows)))
    replayed = taking_part(seed=9, participation=path)
    assert replayed.asked(1) == drawn.asked(1) and replayed.asked(2) == drawn.asked(2)[1:]
    assert replayed.least(2) == 2 and replayed.least(3) == 3
    with pytest.raises(StudyError, match=r"a record of 5 rounds in .*, found 4: set federation.rounds=4"):
        taking_part(5, participation=path)
    with pytest.raises(StudyError, match="Expected names of this study's hospitals"):
        taking_part(names=["north"], participation=path)


@pytest.mark.parametrize("text", ["", "[]", '{"rounds": 3}', '{"rounds": [{"asked": []}]}', "\xff"])
def test_what_is_no_record_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StudyError, match=r"Expected the record of a run .*: name the participation.json of a"):
        read_participation(path)


@pytest.mark.parametrize("rounds", [[], [{"answered": []}]])
def test_a_record_of_nobody_is_refused(tmp_path: Path, rounds: list[Any]) -> None:
    path = tmp_path / "participation.json"
    path.write_text(json.dumps({"rounds": rounds}))
    with pytest.raises(StudyError, match="at least one hospital in each round"):
        read_participation(path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"joins": {"north": 2}}, r"federation\.joins, found north: they are hospital-1, "),
        ({"leaves": {"north": 2}}, r"federation\.leaves, found north"),
        ({"participants": 9}, r"at least 9 hospitals to ask in round 1, found 8"),
        ({"min_hospitals": 9}, r"at least 9 hospitals to ask in round 1, found 8"),
        ({"fraction": 0.25, "min_hospitals": 3}, r"at least 3 hospitals to ask in round 1, found 2"),
        ({"leaves": dict.fromkeys(NAMES, 2)}, r"at least 1 hospital to ask in round 3, found 0"),
    ],
)
def test_settings_that_do_not_suit_the_hospitals_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(StudyError, match=reason):
        taking_part(**settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fraction": 0.5, "participants": 2}, "fraction or participants, found both"),
        ({"fraction": 0.5, "participation": "p.json"}, "neither fraction nor participants"),
        ({"participants": 2, "participation": "p.json"}, "neither fraction nor participants"),
        ({"joins": {"a": 3}, "leaves": {"a": 2}}, "expected a to leave in no earlier round"),
        ({"joins": {"a": 0}}, "greater than 0"),
        ({"fraction": 0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ParticipationSettings(**settings)
