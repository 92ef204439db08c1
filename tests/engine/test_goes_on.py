"""A training that was broken off goes on to the very bytes of one that was not, or begins anew."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import prompts_with_neighbours, randomised, same
from interrupted import breaking_off, checkpoint, steps_of

from tasks.engine.adapter import State
from tasks.engine.base import Base
from tasks.engine.batch import Example, encode
from tasks.engine.engine import Engine
from tasks.engine.progress import FILE
from tasks.engine.train import Correction, train
from tasks.engine.vision import Features
from tasks.federate.control import Controlled
from tasks.federate.local import proximal
from tasks.store import ROOT
from tasks.store.checkpoints import ABOUT, Checkpoint

STEPS = 6
"""Of the trainings below: two passes over eight examples, three at a time."""
HOW: dict[str, Any] = {"epochs": 2, "batch_size": 3, "tokens": 8192, "learning_rate": 1e-2, "seed": 5}
KEPT = ROOT / "hospitals/north/checkpoint/key"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def engine(tiny_base: Base) -> Engine:
    return Engine(tiny_base, r=4, alpha=8, dropout=0.3, targets=["q_proj", "v_proj"])


@pytest.fixture
def examples(tiny_base: Base, features: Features) -> list[Example]:
    return encode(tiny_base, features, prompts_with_neighbours())


Training = Callable[..., tuple[State, float, int]]


@pytest.fixture
def training(engine: Engine, features: Features, examples: list[Example]) -> Training:
    """Trains as a stage does: from the round's adapter, whatever the engine had before."""

    def run(kept: Checkpoint | None, **how: Any) -> tuple[State, float, int]:
        engine.switch(randomised(engine.initial_state(0), 2))
        loss, taken = train(engine, features, examples, **HOW | how, checkpoint=kept)
        return engine.read(), loss, taken

    return run


def equal(one: tuple[State, float, int], other: tuple[State, float, int]) -> bool:
    return same(one[0], other[0]) and one[1:] == other[1:]


WAYS: dict[str, dict[str, Any]] = {"single": {}, "parts": {"tokens": 300}, "images": {"by_image": True}}
WAYS |= {"one factor": {"frozen": "A"}}


@pytest.mark.parametrize("way", WAYS)
def test_broken_off_at_any_step_it_goes_on_to_the_same_bytes(training: Training, way: str) -> None:
    straight, all_steps = training(None, **WAYS[way]), steps_of(lambda: training(None, **WAYS[way]))
    assert all_steps > 3 and straight[2] == all_steps
    for number in range(1, all_steps + 1):
        with breaking_off(number):
            training(checkpoint(), **WAYS[way])
        found: list[Any] = []
        assert steps_of(lambda: found.append(training(checkpoint(), **WAYS[way]))) == all_steps - number + 1  # noqa: B023
        assert equal(found[0], straight)
        shutil.rmtree(KEPT)


def test_broken_off_after_each_step_it_comes_to_the_same_end(training: Training) -> None:
    straight = training(None)
    for number in range(STEPS - 1):
        with breaking_off(2) as begun:
            training(checkpoint())
        assert len(begun) == 2, number
    assert equal(training(checkpoint()), straight)


def proximal_pull(start: State) -> Correction:
    return proximal(5.0, start)


def control(start: State) -> Controlled:
    server, own = ({name: torch.full_like(each, value) for name, each in start.items()} for value in (0.01, 0.02))
    return Controlled(start, server, own)


@pytest.mark.parametrize("made", [proximal_pull, control])
def test_a_correction_goes_on_with_what_it_remembers(
    training: Training, engine: Engine, made: Callable[[State], Any]
) -> None:
    start = randomised(engine.initial_state(0), 2)
    correct = made(start)
    straight = training(None, correct=correct)
    assert not equal(training(None), straight)
    with breaking_off(4):
        training(checkpoint(), correct=made(start))
    further = made(start)
    assert equal(training(checkpoint(), correct=further), straight)
    if isinstance(correct, Controlled):
        assert same(further.change(), correct.change())


def test_every_so_many_minutes_it_is_saved(training: Training, caplog: pytest.LogCaptureFixture) -> None:
    """Every two minutes, at a minute for each step: the fourth is the last that was saved before the sixth."""
    straight, clock = training(None), [0.0]

    def tick(_: object) -> None:
        clock[0] += 60

    with breaking_off(6):
        training(checkpoint(minutes=2, now=lambda: clock[0]), correct=tick)
    assert not caplog.messages
    then = time.time() - 3 * 60
    os.utime(KEPT / "manifest.json", (then, then))
    caplog.set_level("INFO", "fed_rag")
    found: list[Any] = []
    assert steps_of(lambda: found.append(training(checkpoint(), title="round 2 north"))) == 2
    assert equal(found[0], straight)
    assert caplog.messages == ["round 2 north: goes on from step 4 of 6, saved 3 minutes ago"]


def test_where_it_ends_nothing_has_changed_by_saving(training: Training) -> None:
    assert equal(training(checkpoint()), training(None))
    assert KEPT.exists()  # until the folder that it is for is whole
    shutil.rmtree(KEPT)
    training(checkpoint(minutes=None))
    training(checkpoint(minutes=60))
    assert not KEPT.exists()


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[], object]] = {
    "altered": lambda: alter(KEPT / FILE),
    "cut": lambda: (KEPT / FILE).write_bytes((KEPT / FILE).read_bytes()[:-1]),
    "lost": lambda: (KEPT / ABOUT).unlink(),
    "no manifest": lambda: (KEPT / "manifest.json").unlink(),
    "no JSON": lambda: (KEPT / "manifest.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_from_a_damaged_checkpoint_it_begins_anew(
    training: Training, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    straight = training(None)
    with breaking_off(4):
        training(checkpoint())
    DAMAGES[damage]()
    found: list[Any] = []
    assert steps_of(lambda: found.append(training(checkpoint(), title="round 2 north"))) == STEPS
    assert equal(found[0], straight)
    (told,) = caplog.messages
    assert told.startswith("round 2 north: begins anew, since its checkpoint hospitals/north/checkpoint/key is damaged")


def test_no_other_work_takes_a_checkpoint(training: Training, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by another key nor, put in its place, by its own."""
    with breaking_off(4):
        training(checkpoint())
    assert steps_of(lambda: training(checkpoint("other", None), seed=6)) == STEPS
    assert not caplog.messages
    shutil.copytree(KEPT, KEPT.with_name("other"))
    assert steps_of(lambda: training(checkpoint("other", None), seed=6)) == STEPS
    assert len(caplog.messages) == 1 and "of other work" in caplog.messages[0]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk without room for tensors."""

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tasks.engine.progress.save_file", refuse)
        yield


def test_on_a_full_disk_it_trains_all_the_same(
    training: Training, full: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert equal(training(checkpoint()), training(None))
    assert len(caplog.messages) == STEPS and "no checkpoint was saved" in caplog.messages[0]
    assert not list(KEPT.parent.iterdir())
