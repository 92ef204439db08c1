"""After each switch, the weights in use are the ones meant: whatever stands in the way is noticed."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_samples import randomised
from family_samples import every_family
from peft.tuners.lora import LoraLayer

from tasks.engine.base import Base
from tasks.engine.engine import Engine
from tasks.errors import StudyError


def layers(engine: Engine) -> list[LoraLayer]:
    return [module for module in engine.peft.modules() if isinstance(module, LoraLayer)]


def replaced(engine: Engine) -> None:
    """As loading by a library that makes new parameters does."""
    held = layers(engine)[-1].lora_B["default"]
    held.weight = torch.nn.Parameter(held.weight.detach().clone() + 1)


def merged(engine: Engine) -> None:
    layers(engine)[0].merge()


def turned_off(engine: Engine) -> None:
    layers(engine)[0].enable_adapters(False)


def another_active(engine: Engine) -> None:
    layers(engine)[-1]._active_adapter = "other"


@every_family
def test_what_the_layers_compute_with_is_read_back(engine: Engine) -> None:
    names = engine.read().keys()
    assert engine._probe.uses.keys() == names
    engine.switch(randomised(engine.read(), 1))


@pytest.mark.parametrize("spoil", [replaced, merged, turned_off, another_active])
def test_a_layer_that_computes_otherwise_is_noticed(engine: Engine, spoil: Callable[[Engine], Any]) -> None:
    engine.switch(randomised(engine.read(), 1))
    spoil(engine)
    with pytest.raises(StudyError, match=r"compute with the adapter that was switched on, found .*lora_[AB].weight: "):
        engine.switch(randomised(engine.read(), 2))


def test_a_projector_that_learns_is_read_back_too(tiny_base: Base) -> None:
    engine = Engine(tiny_base, 4, 8, 0.0, ["q_proj"], projector=True)
    try:
        state = randomised(engine.read(), 1)
        engine.switch(state)
        (use,) = [use for name, use in engine._probe.uses.items() if "lora_" not in name][:1]
        setattr(use.holder, use.attribute, torch.nn.Parameter(getattr(use.holder, use.attribute).detach() + 1))
        with pytest.raises(StudyError, match="other weights in"):
            engine.switch(state)
    finally:
        engine.peft.unload()


def test_a_diverged_adapter_can_be_switched_on(engine: Engine) -> None:
    state = {name: torch.full_like(tensor, math.nan) for name, tensor in engine.read().items()}
    engine.switch(state)


def test_a_switch_does_not_search_the_model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study switches thousands of times: what it needs to know of the model, the engine found when it was made."""
    state = randomised(engine.read(), 1)
    with monkeypatch.context() as patch:
        patch.delattr(torch.nn.Module, "named_modules")
        engine.switch(state)
    assert all(tensor.equal(state[name]) for name, tensor in engine.read().items())
