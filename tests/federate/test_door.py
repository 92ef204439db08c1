"""The door: what is wrong with an update is found, and told by hospital."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_samples import randomised, same
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine.adapter import State
from tasks.engine.batch import Example, shuffled
from tasks.engine.fast.tree import BRANCHES, steps_of_rows
from tasks.engine.train import possible_steps
from tasks.errors import StudyError
from tasks.federate.door import Expected, admit
from tasks.federate.state import Update
from tasks.records.federation import TOGETHER
from tasks.settings import LocalSteps, StrategySettings

SHAPES = {"a.lora_A.weight": (2, 5), "a.lora_B.weight": (3, 2)}
CONFIG = {"r": 2, "lora_alpha": 4, "target_modules": ["a"]}


def state(seed: int, scale: float = 1.0) -> State:
    return randomised({name: torch.empty(shape) for name, shape in SHAPES.items()}, seed, scale)


START = {name: torch.full(shape, 7.0) for name, shape in SHAPES.items()}
EXPECTED = Expected(3, "base", {"adapter": START}, CONFIG)
NAMES = ("north", "south", "east")


def step(seed: int, scale: float = 0.01) -> State:
    return {name: START[name] + tensor for name, tensor in state(seed, scale).items()}


def update(hospital: str, part: State) -> Update:
    return Update(hospital, 2, 20, 0.5, {"adapter": part}, 4, "base", CONFIG)


def sent() -> dict[str, Update | None]:
    return {name: update(name, step(seed)) for seed, name in enumerate(NAMES)}


def turned_away(spoil: Callable[[Update], Update | None]) -> str:
    """The reason for turning away the one hospital that sends a spoilt update."""
    given = sent()
    south = given["south"]
    assert south
    given["south"] = spoil(south)
    passed, reasons = admit(given, EXPECTED, StrategySettings())
    assert [each.hospital for each in passed] == ["north", "east"]
    assert reasons.keys() == {"south"}
    return reasons["south"]


def changed(name: str, tensor: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Update], Update]:
    return lambda found: replace(
        found, parts={"adapter": {**found.parts["adapter"], name: tensor(found.parts["adapter"][name].clone())}}
    )


def spoilt(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        tensor[1, 1] = value
        return tensor

    return spoil


ASKED = LocalSteps(epochs=2, batch_size=6, by_image=False)  # 20 cases are 4 steps, twice
KNOWING = replace(EXPECTED, steps=ASKED)


@pytest.mark.parametrize(("samples", "steps"), [(20, 7), (20, 9), (20, 1), (20_000_000, 8), (1, 8), (20, 8_000_000)])
def test_steps_that_the_cases_do_not_take_are_turned_away(samples: int, steps: int) -> None:
    given: dict[str, Update | None] = {name: replace(found, steps=8) for name, found in sent().items() if found}
    given["south"] = replace(update("south", step(1)), samples=samples, steps=steps)
    passed, reasons = admit(given, KNOWING, StrategySettings())
    assert reasons == {"south": "a number of steps that its number of cases does not take"}
    assert [each.hospital for each in passed] == ["north", "east"]
    assert not admit(given, EXPECTED, StrategySettings())[1]  # where steps are drawn at random


def test_the_sum_of_all_hospitals_is_not_held_to_the_steps_of_one() -> None:
    given = {TOGETHER: replace(update(TOGETHER, step(1)), samples=61, steps=9)}
    assert not admit(given, KNOWING, StrategySettings())[1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, BRANCHES), min_size=1, max_size=40), st.integers(1, 40), st.integers(1, 3))
def test_no_hospital_that_does_as_asked_is_turned_away(rows: list[int], batch_size: int, epochs: int) -> None:
    samples = sum(rows)
    examples = [Example((1,), (2,), ())] * samples
    whole = steps_of_rows([examples[:row] for row in rows], batch_size)
    single = shuffled(examples, batch_size, torch.Generator())
    for by_image, taken in ((True, len(whole)), (False, len(single))):
        assert epochs * taken in possible_steps(samples, epochs, batch_size, by_image)


B = "a.lora_B.weight"
FAULTS: list[tuple[str, Callable[[Update], Update | None]]] = [
    ("unreadable", lambda found: None),
    ("in another hospital's name", lambda found: replace(found, hospital="north")),
    ("of round 1", lambda found: replace(found, base_round=0)),
    ("trained on another base", lambda found: replace(found, base="other")),
    ("no valid number of training cases", lambda found: replace(found, samples=-5)),
    ("no valid number of training cases", lambda found: replace(found, samples=2.5)),  # type: ignore[arg-type]
    ("no valid number of training cases", lambda found: replace(found, samples=True)),
    ("no valid number of steps", lambda found: replace(found, steps=0)),
    ("without tensors of adapter", lambda found: replace(found, parts={})),
    ("with unexpected groups of tensors", lambda found: replace(found, parts=found.parts | {"<b>": state(1)})),
    (
        "0 tensors missing and 1 unexpected",
        lambda found: replace(found, parts={"adapter": {**step(1), "<i>": START[B]}}),
    ),
    (f"{B} of shape (3, 4), not (3, 2)", changed(B, lambda _: torch.zeros(3, 4))),
    (f"{B} of type torch.float16, not torch.float32", changed(B, lambda found: found.half())),
    ("another adapter configuration (r)", lambda found: replace(found, config=CONFIG | {"r": 8})),
    ("another adapter configuration (lora_alpha)", lambda found: replace(found, config=CONFIG | {"lora_alpha": 1})),
    ("another adapter configuration", lambda found: replace(found, config=CONFIG | {"Ignore <this>": 1})),
    ("another adapter configuration (lora_alpha)", lambda found: replace(found, config=None)),
    (f"not finite ({B})", changed(B, spoilt(math.nan))),
    (f"not finite ({B})", changed(B, spoilt(math.inf))),
    (f"not finite ({B})", changed(B, spoilt(-math.inf))),
    ("a loss that is not finite", lambda found: replace(found, loss=math.nan)),
    ("a loss that is not finite", lambda found: replace(found, loss="low")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("reason", "spoil"), FAULTS, ids=[f"{n}" for n in range(len(FAULTS))])
def test_what_is_wrong_is_told(reason: str, spoil: Callable[[Update], Update | None]) -> None:
    assert turned_away(spoil) == reason


def test_foreign_keys_are_told_by_their_number() -> None:
    foreign = {f"other.{name}": tensor for name, tensor in step(1).items()}
    assert turned_away(lambda found: replace(found, parts={"adapter": foreign})) == "2 tensors missing and 2 unexpected"


def test_a_step_many_times_as_long_as_the_others_is_turned_away() -> None:
    """Counted from the round's start, which is much longer than any step."""
    assert turned_away(lambda found: update("south", step(1, 0.5))).endswith("times the median norm (adapter)")
    passed, reasons = admit({**sent(), "south": update("south", step(1, 0.05))}, EXPECTED, StrategySettings())
    assert len(passed) == 3 and not reasons
    _, reasons = admit({**sent(), "south": update("south", step(1, 0.05))}, EXPECTED, StrategySettings(max_norm=3))
    assert reasons.keys() == {"south"}


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.floats(1e-8, 1e6), st.integers(0, 99))
def test_the_norms_bound_has_no_scale(bad_times: int, scale: float, seed: int) -> None:
    """The same hospital is turned away whatever the learning rate is."""
    zero = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    expected = Expected(1, "", {"adapter": zero}, None)
    lengths = [1.0, 1.0, 1.0, float(bad_times)]
    given: dict[str, Any] = {}
    for number, length in enumerate(lengths):
        part = state(seed)
        norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in part.values()))
        scaled = {name: tensor * (scale * length / norm) for name, tensor in part.items()}
        given[f"h{number}"] = Update(f"h{number}", 0, 1, 0.5, {"adapter": scaled})
    _, reasons = admit(given, expected, StrategySettings(max_norm=3.5))
    assert reasons.keys() == ({"h3"} if bad_times > 3.5 else set())


def test_updates_of_zeros_pass() -> None:
    given: dict[str, Update | None] = {name: update(name, dict(START)) for name in NAMES}
    given["south"] = update("south", step(1))
    passed, reasons = admit(given, EXPECTED, StrategySettings())
    assert len(passed) == 3 and not reasons


def test_claimed_samples_are_bounded() -> None:
    given = {**sent(), "south": replace(update("south", step(1)), samples=10**9)}
    passed, _ = admit(given, EXPECTED, StrategySettings(max_samples=30))
    assert [each.samples for each in passed] == [20, 30, 20]


def test_control_variates_pass_the_same_door() -> None:
    zero = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    expected = replace(EXPECTED, tensors={"adapter": START, "adapter-control": zero})
    given: dict[str, Any] = {
        name: replace(each, parts=each.parts | {"adapter-control": state(seed)})
        for seed, (name, each) in enumerate(sent().items())
        if each
    }
    assert not admit(given, expected, StrategySettings())[1]
    given["south"] = replace(given["south"], parts=given["south"].parts | {"adapter-control": state(1, 1e4)})
    given["east"] = replace(given["east"], parts={"adapter": step(2)})
    reasons = admit(given, expected, StrategySettings(max_norm=1.5))[1]
    assert reasons["south"].endswith("times the median norm (adapter-control)")
    assert reasons["east"] == "without tensors of adapter-control"


def test_counts_are_checked_where_no_tensors_are_sent() -> None:
    alone = Expected(3, "base", {}, None)
    given: dict[str, Any] = {"north": Update("north", 2, 5, math.nan, {}, 1, "base"), "south": None}
    passed, reasons = admit(given, alone, StrategySettings(strategy="none"))
    assert [each.hospital for each in passed] == ["north"] and reasons == {"south": "unreadable"}


def test_nothing_is_changed_and_sound_updates_are_as_they_came() -> None:
    given = sent()
    passed, reasons = admit(given, EXPECTED, StrategySettings())
    assert not reasons
    for each, seed in zip(passed, range(3), strict=True):
        assert same(each.parts["adapter"], step(seed))
    assert given.keys() == set(NAMES)


def test_a_round_without_a_sound_update_is_an_error() -> None:
    given: dict[str, Any] = {"north": None, "south": update("north", step(1))}
    with pytest.raises(StudyError, match=r"sound update in round 3, found none \(north: unreadable\): lower"):
        admit(given, EXPECTED, StrategySettings())
