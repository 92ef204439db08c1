"""A dotted name changes one place of nested settings, and no other."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.settings import Study
from tasks.settings.comparison import changed
from tasks.settings.dotted import assign

NAMES = st.text("abc", min_size=1, max_size=2)
NESTED = st.recursive(
    st.dictionaries(NAMES, st.integers(), max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(inner, st.lists(inner, max_size=2)), max_size=3),
    max_leaves=8,
)
PARTS = st.lists(st.one_of(NAMES, st.sampled_from(["0", "1", "-1"])), min_size=1, max_size=4)


def leaves(value: Any, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no group and no list, by the parts of its name."""
    if isinstance(value, dict):
        return {name: leaf for each, inner in value.items() for name, leaf in leaves(inner, (*place, each)).items()}
    if isinstance(value, list):
        return {name: leaf for i, inner in enumerate(value) for name, leaf in leaves(inner, (*place, str(i))).items()}
    return {place: value}


@given(NESTED, PARTS, st.one_of(st.text(), st.just("${seed}"), st.just("${"), st.none()))
def test_one_place_is_changed_or_none(values: dict[str, Any], parts: list[str], value: Any) -> None:
    before = leaves(copy.deepcopy(values))
    try:
        assign(values, ".".join(parts), value)
    except StudyError:
        assert leaves(values) == before
        return
    after = leaves(values)
    assert after.pop(tuple(parts)) == value
    assert after == {name: leaf for name, leaf in before.items() if name[: len(parts)] != tuple(parts)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stages.-1.epochs", "Expected a number from 0 to 1 at '-1' in 'stages.-1.epochs': name one of the list."),
        ("stages.2.epochs", "Expected a number from 0 to 1 at '2' in 'stages.2.epochs': name one of the list."),
        ("stages.last", "Expected a number from 0 to 1 at 'last' in 'stages.last': name one of the list."),
        ("seed.x", "Expected a group of settings at 'seed' in 'seed.x', found 0."),
    ],
)
def test_a_place_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(StudyError) as error:
        assign({"seed": 0, "stages": [{"epochs": 1}, {"epochs": 2}]}, name, 3)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["seed.x", "lora.targets.0"])
def test_a_cell_names_the_setting_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=f"^unknown setting {name}$"):
        changed(Study(), {name: "a"})
