"""A residual beside the adapter, against PEFT's adapter of both together; export as one adapter."""

import json
from pathlib import Path

import pytest
import torch
from engine_samples import logits, prompts_with_neighbours, randomised
from peft import PeftModel
from safetensors.torch import save

from tasks.engine.adapter import CONFIG, WEIGHTS, State, adapter_files, as_one, load_state
from tasks.engine.base import Base, load_base
from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.vision import Features
from tasks.errors import StudyError


@pytest.fixture
def inputs(tiny_base: Base, features: Features) -> dict[str, torch.Tensor]:
    examples = encode(tiny_base, features, prompts_with_neighbours()[:4])
    return collate(tiny_base, features, examples).inputs


def residual(state: State, ranks: tuple[int, ...]) -> State:
    """Factors of other ranks for the layers of an adapter, in turn."""
    made = {}
    for number, name in enumerate(sorted(name for name in state if "lora_A" in name)):
        rank, other = ranks[number % len(ranks)], name.replace("lora_A", "lora_B")
        generator = torch.Generator().manual_seed(number)
        made[name] = 0.2 * torch.randn(rank, state[name].shape[1], generator=generator)
        made[other] = 0.2 * torch.randn(len(state[other]), rank, generator=generator)
    return made


@pytest.fixture
def written(engine: Engine, tmp_path: Path) -> Path:
    """A folder with an adapter and a residual."""
    state = randomised(engine.read(), 1)
    for name, data in adapter_files(state, engine.config, "tiny").items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "adapter-residual.safetensors").write_bytes(save(residual(state, (0, 3, 7)), {"format": "pt"}))
    return tmp_path


def test_both_together_are_one_adapter_of_peft(
    engine: Engine, written: Path, tmp_path: Path, tiny_folder: Path, inputs: dict[str, torch.Tensor]
) -> None:
    state = load_state(written)
    assert sum("residual" in name for name in state) == sum("lora" in name for name in state)
    engine.switch(state)
    found = logits(engine.base.model, inputs)
    joined, config = as_one(state, json.loads((written / CONFIG).read_text()))
    one = tmp_path / "one"
    one.mkdir()
    (one / WEIGHTS).write_bytes(save(joined, {"format": "pt"}))
    (one / CONFIG).write_text(json.dumps(config))
    model = PeftModel.from_pretrained(load_base(str(tiny_folder), device="cpu").model, str(one))
    torch.testing.assert_close(logits(model.eval(), inputs), found, rtol=0, atol=1e-4)
    engine.switch({name: tensor for name, tensor in state.items() if "residual" not in name})
    assert (logits(engine.base.model, inputs) - found).abs().max() > 0.1


def test_it_is_gone_with_the_next_switch_and_merged_with_the_adapter(
    engine: Engine, written: Path, tiny_folder: Path, inputs: dict[str, torch.Tensor]
) -> None:
    alone = randomised(engine.read(), 1)
    engine.switch(alone)
    before = logits(engine.base.model, inputs)
    engine.switch(load_state(written))
    both = logits(engine.base.model, inputs)
    engine.switch(alone)
    assert torch.equal(logits(engine.base.model, inputs), before)
    again = load_base(str(tiny_folder), device="cpu")
    other = Engine(again, engine.config.r, engine.config.lora_alpha, 0.0, ["q_proj", "v_proj"])
    other.switch(load_state(written))
    torch.testing.assert_close(logits(other.merge(), inputs), both, rtol=0, atol=1e-4)


def test_gradients_are_those_of_a_base_that_has_it(
    engine: Engine, written: Path, tiny_folder: Path, inputs: dict[str, torch.Tensor]
) -> None:
    """Only the adapter gets them; a second base has the residual in its weights."""
    state = load_state(written)
    again = load_base(str(tiny_folder), device="cpu")
    other = Engine(again, engine.config.r, engine.config.lora_alpha, 0.0, ["q_proj", "v_proj"])
    other.switch(state)
    other._residual.merge()
    engine.switch(state)
    found = []
    for each in (engine, other):
        each.base.model(**inputs).logits.float().sum().backward()
        found.append({name: parameter.grad for name, parameter in each.named_parameters().items()})
        for parameter in each.parameters():
            parameter.grad = None
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-3, atol=1e-3)


def test_a_residual_of_another_model_is_refused(engine: Engine) -> None:
    state = engine.read()
    with pytest.raises(StudyError, match="Expected a residual of layers with LoRA, found other"):
        engine.switch(
            state | {"other.residual_A.weight": torch.ones(1, 2), "other.residual_B.weight": torch.ones(2, 1)}
        )
    with pytest.raises(StudyError, match="unexpected"):
        engine.switch(state | {"other.lora_A.weight": torch.ones(1, 2)})


def test_an_adapter_without_one_stays_as_it_is(engine: Engine) -> None:
    state = engine.read()
    joined, config = as_one(state, {"r": 4, "lora_alpha": 8})
    assert joined == state
    assert config == {"r": 4, "lora_alpha": 8}
