"""Adapters really switch, exactly; what does not fit is refused and changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from engine_samples import logits, prompts_with_neighbours, randomised, same
from family_samples import every_family
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

from tasks.engine.adapter import CONFIG, WEIGHTS, State, adapter_files, load_state
from tasks.engine.base import Base, load_base
from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.vision import Features
from tasks.errors import StudyError


@pytest.fixture
def inputs(tiny_base: Base, features: Features) -> dict[str, torch.Tensor]:
    examples = encode(tiny_base, features, prompts_with_neighbours()[:4])
    return collate(tiny_base, features, examples).inputs


@every_family
def test_switching_back_gives_the_same_bits(engine: Engine, inputs: dict[str, torch.Tensor]) -> None:
    one, other = randomised(engine.read(), 1), randomised(engine.read(), 2)
    found = []
    for state in (one, other, one):
        engine.switch(state)
        assert same(engine.read(), state)
        found.append(logits(engine.base.model, inputs))
    assert torch.equal(found[0], found[2])
    assert (found[0] - found[1]).abs().max() > 0.1


@every_family
def test_switching_is_what_peft_does(engine: Engine, inputs: dict[str, torch.Tensor]) -> None:
    """With the base in place and its modules as they were."""
    state = randomised(engine.read(), 1)
    modules = [id(module) for module in engine.peft.modules()]
    engine.switch(state)
    found = logits(engine.base.model, inputs)
    assert [id(module) for module in engine.peft.modules()] == modules
    assert same(get_peft_model_state_dict(engine.peft), state)
    engine.switch(randomised(engine.read(), 2))
    assert not set_peft_model_state_dict(engine.peft, state).unexpected_keys
    assert same(engine.read(), state)
    assert torch.equal(logits(engine.base.model, inputs), found)


def test_an_adapter_changes_the_base(engine: Engine, inputs: dict[str, torch.Tensor]) -> None:
    plain = logits(engine.base.model, inputs)
    engine.switch(randomised(engine.read(), 1))
    assert (logits(engine.base.model, inputs) - plain).abs().max() > 0.1


def test_states_are_copies(engine: Engine) -> None:
    state = randomised(engine.read(), 1)
    engine.switch(state)
    for tensor in engine.read().values():
        tensor.fill_(7)
    assert same(engine.read(), state)
    for tensor in state.values():
        tensor.fill_(7)
    assert not same(engine.read(), state)


def without_first(state: State) -> State:
    return dict(list(state.items())[1:])


def with_another(state: State) -> State:
    return state | {"base_model.model.model.visual.lora_A.weight": torch.zeros(4, 4)}


def of_other_names(state: State) -> State:
    """As `peft.state_dict()` names them: what `load_state_dict(strict=False)` would pass over in silence."""
    return {name.replace(".weight", ".default.weight"): tensor for name, tensor in state.items()}


def of_another_rank(state: State) -> State:
    return {name: tensor[:2] if "lora_A" in name else tensor[:, :2] for name, tensor in state.items()}


def of_one_wrong_shape(state: State) -> State:
    *_, last = state
    return state | {last: state[last].T}


def empty(state: State) -> State:
    return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_first, r"8 tensors .* 1 missing \(first base_model.*\) and 0 unexpected \(none\)"),
        (with_another, r"0 missing \(none\) and 1 unexpected \(first base_model.model.model.visual"),
        (of_other_names, r"8 missing .* 8 unexpected"),
        (of_another_rank, r"of shape \(4, 64\), found \(2, 64\): the adapter has another rank"),
        (of_one_wrong_shape, r"of shape .*, found .*: the adapter has another rank"),
        (empty, r"8 missing"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(
    engine: Engine, inputs: dict[str, torch.Tensor], change: object, message: str
) -> None:
    present = randomised(engine.read(), 1)
    engine.switch(present)
    before = logits(engine.base.model, inputs)
    with pytest.raises(StudyError, match=message):
        engine.switch(change(randomised(engine.read(), 2)))  # type: ignore[operator]
    assert same(engine.read(), present)
    assert torch.equal(logits(engine.base.model, inputs), before)


@every_family
def test_peft_reads_the_folder(
    engine: Engine, inputs: dict[str, torch.Tensor], tiny_folder: Path, tmp_path: Path
) -> None:
    state = randomised(engine.read(), 1)
    engine.switch(state)
    for name, data in adapter_files(engine.read(), engine.config, "tiny").items():
        (tmp_path / name).write_bytes(data)
    assert same(load_state(tmp_path), state)
    fresh = load_base(str(tiny_folder), device="cpu").model
    plain = logits(fresh, inputs)
    opened = PeftModel.from_pretrained(fresh, tmp_path)
    assert opened.peft_config["default"].lora_alpha == 8
    assert (logits(opened, inputs) - plain).abs().max() > 0.1
    torch.testing.assert_close(logits(opened, inputs), logits(engine.base.model, inputs), rtol=0, atol=1e-6)


def test_adapter_files_hold_a_state_whatever_its_order(engine: Engine) -> None:
    state = randomised(engine.read(), 1)
    turned = dict(reversed(state.items()))
    assert adapter_files(turned, engine.config, "tiny") == adapter_files(state, engine.config, "tiny")
    assert set(adapter_files(state, engine.config, "tiny")) == {WEIGHTS, CONFIG}
    assert json.loads(adapter_files(state, engine.config, "tiny")[CONFIG])["r"] == 4


def test_an_initial_state_follows_from_its_seed(engine: Engine) -> None:
    state = engine.initial_state(3)
    torch.manual_seed(99)
    assert same(engine.initial_state(3), state)
    assert not same(engine.initial_state(4), state)
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in engine.read().items()
    }
    assert all(tensor.any() == ("lora_A" in name) for name, tensor in state.items())


@every_family
def test_an_initial_state_leaves_the_base_unchanged(
    engine: Engine, inputs: dict[str, torch.Tensor], tiny_folder: Path
) -> None:
    plain = logits(load_base(str(tiny_folder), device="cpu").model, inputs)
    engine.switch(randomised(engine.read(), 1))
    engine.switch(engine.initial_state(0))
    assert torch.equal(logits(engine.base.model, inputs), plain)


@every_family
def test_only_the_text_model_is_adapted(tiny_base: Base) -> None:
    engine = Engine(tiny_base, r=2, alpha=2, dropout=0.0, targets=["q_proj", "up_proj"])
    names = list(engine.read())
    assert len(names) == 2 * 2 * 2
    assert all("language_model.layers" in name for name in names)
    assert len(engine.parameters()) == len(names)


@pytest.mark.parametrize("target", ["w_pack", "qkv", "embed_tokens", "layers"])
def test_an_absent_layer_is_refused_with_the_choices(tiny_base: Base, target: str) -> None:
    choices = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(StudyError, match=rf"found '{target}', which it lacks: choose among {choices}\.$"):
        Engine(tiny_base, r=2, alpha=2, dropout=0.0, targets=["q_proj", target])
    assert not any("lora" in name for name, _ in tiny_base.model.named_modules())
