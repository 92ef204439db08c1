"""LoRA and attention in a base of bfloat16: PEFT's own in float32 but for rounding, and what is left alone."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from family_samples import every_family
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear as PeftLinear
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForImageTextToText

from tasks.engine.attribution.attention import eager
from tasks.engine.base import load_base
from tasks.engine.engine import Engine
from tasks.engine.fast.bfloat16 import ATTENTION, BFloat16Linear, multiply_in_bfloat16
from tasks.engine.written import write_base

INSIDE, OUTSIDE = 48, 32


def lora(dtype: torch.dtype, dropout: float = 0.0, **options: Any) -> torch.nn.Module:
    """PEFT's model of one linear layer, always with the same weights; B is not zero."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(INSIDE, OUTSIDE)).requires_grad_(False).to(dtype)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["0"], init_lora_weights=False)
    for name, value in options.items():
        setattr(config, name, value)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model


def computed(layer: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and gradients, by name."""
    x = x.clone().requires_grad_()
    made = layer(x)
    made.float().square().sum().backward()
    gradients = {name: each.grad for name, each in layer.named_parameters() if each.grad is not None}
    assert x.grad is not None and len(gradients) == 2
    return {"output": made, "input": x.grad, **gradients}


def test_values_and_gradients_are_those_of_peft_in_float32() -> None:
    x = torch.randn(3, 5, INSIDE, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    ours = lora(torch.bfloat16)
    multiply_in_bfloat16(ours)
    assert type(ours[0]) is BFloat16Linear
    exact = lora(torch.bfloat16).float()
    found, wanted = computed(ours, x), computed(exact, x.float())
    assert found["output"].dtype == found["input"].dtype == torch.bfloat16
    assert {each.dtype for name, each in found.items() if "lora_" in name} == {torch.float32}
    for name, each in wanted.items():
        torch.testing.assert_close(found[name].float(), each, rtol=2e-2, atol=2e-2 * float(each.detach().abs().max()))


def test_dropout_falls_on_what_lora_sees_alone() -> None:
    layer = lora(torch.bfloat16, dropout=0.999).train()
    multiply_in_bfloat16(layer)
    x = torch.ones(2, INSIDE, dtype=torch.bfloat16)
    torch.manual_seed(3)  # with this seed nothing is kept
    assert torch.equal(layer(x), layer[0].base_layer(x))
    assert not torch.equal(layer.eval()(x), layer[0].base_layer(x))


def test_what_is_no_plain_adapter_is_left_to_peft() -> None:
    x = torch.randn(2, INSIDE, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    ours = lora(torch.bfloat16)
    theirs = deepcopy(ours)
    multiply_in_bfloat16(ours)
    for change in ("enable_adapters(False)", "enable_adapters(True)", "merge()", "unmerge()"):
        for layer in (ours[0], theirs[0]):
            name, value = change[:-1].split("(")
            getattr(layer, name)(*([value == "True"] if value else []))
        assert torch.allclose(ours(x), theirs(x), rtol=2e-2, atol=2e-2), change
        if change in ("enable_adapters(False)", "merge()"):
            assert torch.equal(ours(x), theirs(x)), change
    weighted = lora(torch.bfloat16, use_dora=True)
    again = deepcopy(weighted)
    multiply_in_bfloat16(weighted)
    assert torch.equal(weighted(x), again(x))


def test_layers_in_float32_stay_as_they_are() -> None:
    layer = lora(torch.float32)
    multiply_in_bfloat16(layer)
    assert type(layer[0]) is PeftLinear


@every_family
def test_attention_in_training_is_in_float32_and_otherwise_as_it_was(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(tiny_folder), device="cpu", precision="bfloat16")
    text = base.model.model.language_model
    if text.config.model_type == "gemma2":  # its scores are bounded, which torch's function cannot do
        assert text.config._attn_implementation == "eager"
        return
    assert text.config._attn_implementation == ATTENTION
    seen: list[torch.dtype] = []

    def attend(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(query.dtype)
        return scaled_dot_product_attention(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    engine = Engine(base, r=4, alpha=8, dropout=0.0, targets=["v_proj"])  # the first layer's queries do not learn
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        text(input_ids=ids, use_cache=False)
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    engine.peft.train()
    assert text(input_ids=ids, use_cache=False).last_hidden_state.dtype == torch.bfloat16
    assert set(seen) == {torch.float32}


@every_family
def test_the_way_to_attend_comes_back_and_is_not_written_with_a_base(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny_folder), device="cpu", precision="bfloat16")
    text = base.model.model.language_model
    used = text.config._attn_implementation
    with eager(base):
        assert text.config._attn_implementation == "eager"
    assert text.config._attn_implementation == used
    write_base(tmp_path, base.model, base.tokenizer, base.image_processor)
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.model.language_model.config._attn_implementation in ("sdpa", "eager")
