"""4-bit weights: refused where bitsandbytes is absent; where it is installed, the whole way in every family."""

import json
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import IMAGES, prompts_with_neighbours, randomised
from family_samples import every_family
from transformers import AutoConfig

from tasks.engine import memory
from tasks.engine.base import Base, load_base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.fast import quantise
from tasks.engine.fast.stacked import TrainingHospital, train_stacked
from tasks.engine.generate import generate
from tasks.engine.train import train
from tasks.engine.vision import encode_images
from tasks.errors import StudyError

needs_bitsandbytes = pytest.mark.skipif(util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def test_without_bitsandbytes_the_error_gives_the_reason(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(
        StudyError, match=r"is nf4, but .* is not installed: .* pip install '\.\[cuda\]', or set"
    ) as error:
        load_base(str(tiny_folder), device="cpu", quantisation="nf4")
    assert "\n" not in str(error.value)
    assert load_base(str(tiny_folder), device="cpu", quantisation="none")


@every_family
def test_only_the_text_models_layers_shrink(tiny_base: Base, tiny_folder: Path) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    config = AutoConfig.from_pretrained(tiny_folder)
    settings = quantise.four_bits(config, torch.bfloat16).to_dict()
    assert (settings["load_in_4bit"], settings["bnb_4bit_quant_type"]) == (True, "nf4")
    assert (settings["bnb_4bit_compute_dtype"], settings["bnb_4bit_use_double_quant"]) == ("bfloat16", True)
    assert json.dumps(settings)
    linear = [name for name, module in tiny_base.model.named_modules() if isinstance(module, torch.nn.Linear)]
    shrunk = [name for name in linear if should_convert_module(name, settings["llm_int8_skip_modules"])]
    assert {name.split(".")[-1] for name in shrunk} == {*LINEAR}
    assert len(shrunk) == 2 * len(LINEAR)
    assert all(name.startswith("model.language_model.layers.") for name in shrunk)


@every_family
def test_four_bits_are_counted(tiny_folder: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_folder)
    plain, small = (memory.estimate(config, torch.bfloat16, each) for each in (False, True))
    text = sum(each.weight.numel() for each in quantise.text_linear(quantise.blank_model(config)).values())
    assert plain.weights - small.weights == pytest.approx(text * (2 - 0.5159), rel=1e-3)
    assert (small.adapter, small.activations) == (plain.adapter, plain.activations)


def test_the_error_says_what_would_fit_in_four_bits(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AutoConfig.from_pretrained(tiny_folder)
    monkeypatch.setattr(memory, "free_bytes", lambda device: memory.estimate(config, torch.float32, True).total)
    memory.check_memory(config, torch.float32, "cpu", "tiny", is_quantised=True)
    with pytest.raises(StudyError, match=r"free some, set model.quantisation to nf4, or set model.name to embedded"):
        memory.check_memory(config, torch.float32, "cpu", "tiny")


def tensors(layer: Any) -> list[torch.Tensor]:
    """All that a 4-bit layer keeps of its weights."""
    state = layer.weight.quant_state
    return [layer.weight, state.absmax, state.state2.absmax]


@needs_bitsandbytes
@pytest.mark.parametrize("twin", ["qwen2-vl", "qwen2.5-vl"], indirect=True)  # on a CPU, widths are multiples of 64
def test_a_four_bit_base_goes_the_whole_way(tiny_base: Base, tiny_folder: Path) -> None:
    """On the CPU, where bitsandbytes serves too: what is left to a GPU is its speed."""
    base = load_base(str(tiny_folder), device="cpu", quantisation="nf4")
    layers = quantise.text_linear(base.model)
    assert {type(layer).__name__ for layer in layers.values()} == {"Linear4bit"}
    kept = sum(tensor.numel() * tensor.element_size() for layer in layers.values() for tensor in tensors(layer))
    weights = sum(layer.weight.numel() for layer in quantise.text_linear(tiny_base.model).values())
    assert kept == pytest.approx(weights * quantise.BYTES_PER_WEIGHT, rel=0.02)
    features = encode_images(base, IMAGES)
    assert torch.equal(features.rows, encode_images(tiny_base, IMAGES).rows)
    engine = Engine(base, r=4, alpha=8, dropout=0.0, targets=["q_proj", "down_proj"])
    examples = encode(base, features, prompts_with_neighbours())
    start = randomised(engine.read(), 1, scale=0.01)
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 4, "tokens": 8192, "learning_rate": 1e-2}
    engine.switch(start)
    first, _ = train(engine, features, examples, **settings | {"epochs": 1}, seed=0)
    engine.switch(start)
    loss, _ = train(engine, features, examples, **settings, seed=0)
    assert loss < first
    alone = engine.read()
    engine.switch(start)
    (together,) = train_stacked(engine, [TrainingHospital(features, examples, 0)], **settings)
    for name, tensor in alone.items():
        torch.testing.assert_close(together.state[name], tensor, rtol=0, atol=1e-4)
    assert len(generate(engine, features, examples, tokens=8192, max_new_tokens=3)) == len(examples)
