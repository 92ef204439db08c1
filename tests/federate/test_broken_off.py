"""Stages whose training is broken off: what they had learned stays at its hospital, and they go on from it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from interrupted import breaking_off, steps_of
from test_federate_step import FEDERATION, HOSPITALS, PLAIN, Round, one_round  # noqa: F401
from test_within_budget import budget_at

from tasks.federate.personalise.step import train_personal
from tasks.federate.step import train_at_home, train_hospital
from tasks.settings import ContextSettings, LocalRule
from tasks.store import MANIFEST, ROOT, Ref, revising
from tasks.store.checkpoints import ABOUT, checkpoints_every

CALLS: dict[str, Callable[[Round], Ref]] = {
    "for all": lambda at: train_hospital.fn(**at.given("north", at.start, FEDERATION), local=PLAIN),
    "controlled": lambda at: at.train("north", local=LocalRule(control=True)),
    "at home": lambda at: train_at_home.fn(**at.given("north", at.start, FEDERATION), local=PLAIN),
    "personal": lambda at: train_personal.fn(
        **at.given("north", at.start, FEDERATION), local=LocalRule(proximal_mu=1.0), towards=at.start
    ),
    "private": lambda at: private(at),
}


def private(at: Round) -> Ref:
    given = at.given("north", at.start, FEDERATION) | {"context": ContextSettings(k=0), "local": PLAIN}
    given["hospital"] = given["hospital"].model_copy(update={"budget": budget_at(at, "north", sigma=1.0)})
    return train_hospital.fn(**given)


def checkpoints() -> list[str]:
    return sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.rglob(ABOUT))


@pytest.mark.parametrize("which", CALLS)
def test_a_stage_that_was_broken_off_goes_on_to_the_same_folder(which: str, one_round: Round) -> None:  # noqa: F811
    call = CALLS[which]
    found: list[Any] = []
    with checkpoints_every(None):
        steps = steps_of(lambda: found.append(call(one_round)))
    (straight,) = found
    straight.verified()
    with checkpoints_every(0):
        with breaking_off(2):
            call(one_round)
        area, stage, key = straight.path.rsplit("/", 2)
        assert checkpoints() == [f"hospitals/north/checkpoint/{key}"]
        assert not [path for path in (ROOT / area / stage).iterdir() if path.name != key]  # nor anything half written
        place = ROOT / checkpoints()[0]
        about = json.loads((place / ABOUT).read_text())
        assert about["key"] == key and about["seconds"] > 0
        assert steps_of(lambda: found.append(call(one_round))) == steps - 1 > 0
    assert found[1] == straight
    assert not checkpoints()
    assert straight.manifest()["seconds"] > about["seconds"]


def test_the_time_of_a_process_that_was_killed_counts(one_round: Round) -> None:  # noqa: F811
    with checkpoints_every(0), breaking_off(2):
        CALLS["for all"](one_round)
    (path,) = checkpoints()
    about = json.loads((ROOT / path / ABOUT).read_text())
    manifest = json.loads((ROOT / path / MANIFEST).read_text())
    assert manifest["files"].keys() == {ABOUT, "training.safetensors"}
    assert about["seconds"] < 600
    with revising(path) as folder:
        folder.write_json(ABOUT, about | {"seconds": 3600.0})
    assert CALLS["for all"](one_round).manifest()["seconds"] > 3600


def test_another_hospital_or_round_begins_with_its_first_step(one_round: Round) -> None:  # noqa: F811
    with checkpoints_every(0):
        with breaking_off(2):
            one_round.train("north")
        for given in (("south",), ("north", FEDERATION, 2)):
            begun = steps_of(lambda: one_round.train(*given))  # noqa: B023
            assert begun == FEDERATION.local_epochs * max(1, -(-(len(HOSPITALS[given[0]]) - 1) // 4)), given
        assert len(checkpoints()) == 1  # of what was broken off
