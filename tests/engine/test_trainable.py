"""Trainable of a base that learn from pixels: only they change, and merging them gives an ordinary base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CASES, IMAGES, same
from family_samples import every_family

from tasks.engine.base import Base, load_base
from tasks.engine.batch import encode
from tasks.engine.layers import check_layers
from tasks.engine.pixels import Pixels, keep_images
from tasks.engine.prompt import Prompt, build_prompt
from tasks.engine.train import add_gradients, mean_loss
from tasks.engine.trainable import Trainable
from tasks.engine.vision import encode_images
from tasks.errors import StudyError


def prompts() -> list[Prompt]:
    return [build_prompt(case, CASES[n : n + n % 2]) for n, case in enumerate(CASES)]


def sides(base: Base, tower: bool = True, projector: bool = True, text: bool = True) -> Trainable:
    layers = {"qwen2_vl": ("qkv",), "qwen2_5_vl": ("qkv",), "fast_vlm": ("expand_conv", "project_conv")}
    targets = {"tower": layers.get(base.config.model_type, ("q_proj", "v_proj"))} if tower else {}
    targets |= {"text": ("q_proj", "up_proj")} if text else {}
    return Trainable(base, targets, projector, r=4, alpha=8, dropout=0.0, seed=3)


def weights(base: Base) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in base.model.state_dict().items()}


def side_of(base: Base, name: str) -> str:
    family = base.family
    for side, inside in (("projector", family.projector), ("tower", family.tower), ("text", "model.language_model")):
        if name.startswith(f"{inside}."):
            return side
    return "head"


def learn(learner: Trainable, pixels: Pixels, steps: int = 2) -> None:
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-2, weight_decay=0.0)
    examples = encode(learner.base, pixels, prompts())
    for _ in range(steps):
        add_gradients(learner.base, pixels, examples, 400)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


@every_family
def test_pixels_give_what_cached_features_do(tiny_base: Base) -> None:
    pixels, features = keep_images(tiny_base, IMAGES), encode_images(tiny_base, IMAGES)
    assert pixels.grids == features.grids
    names = ["image-2", "image-0", "image-2"]
    with torch.inference_mode():
        for found, name in zip(pixels.all_of(names), names, strict=True):
            torch.testing.assert_close(found, features.of(name), rtol=0, atol=1e-5)
    learner = sides(tiny_base)
    examples = encode(tiny_base, features, prompts())
    assert examples == encode(tiny_base, pixels, prompts())
    expected, tokens = mean_loss(learner, features, examples, 400)
    assert mean_loss(learner, pixels, examples, 8192) == (pytest.approx(expected, abs=1e-5), tokens)


@every_family
@pytest.mark.parametrize("learns", [("tower",), ("projector",), ("text",), ("tower", "projector", "text")])
def test_each_side_that_learns_changes_and_no_other_does(tiny_base: Base, learns: tuple[str, ...]) -> None:
    before = weights(tiny_base)
    chosen: dict[str, Any] = {side: side in learns for side in ("tower", "projector", "text")}
    learner = sides(tiny_base, **chosen)
    learn(learner, keep_images(tiny_base, IMAGES))
    learner.merge()
    after = weights(tiny_base)
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {side_of(tiny_base, name) for name in changed} == set(learns)
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())


@every_family
def test_what_was_merged_is_an_ordinary_folder_that_answers_the_same(tiny_base: Base, tmp_path: Path) -> None:
    pixels = keep_images(tiny_base, IMAGES)
    learner = sides(tiny_base)
    examples = encode(tiny_base, pixels, prompts())
    start, _ = mean_loss(learner, pixels, examples, 8192)
    learn(learner, pixels, 3)
    learned, _ = mean_loss(learner, pixels, examples, 8192)
    assert learned < start
    learner.merge()
    for part in (tiny_base.model, tiny_base.tokenizer, tiny_base.image_processor):
        part.save_pretrained(tmp_path / "merged")
    again = load_base(str(tmp_path / "merged"), device="cpu")
    assert same(weights(again), weights(tiny_base))
    found = Trainable(again, {}, True, r=1, alpha=1, dropout=0, seed=0)
    loss, _ = mean_loss(found, keep_images(again, IMAGES), encode(again, pixels, prompts()), 8192)
    assert loss == pytest.approx(learned, abs=1e-5)


def test_gradients_of_pixels_are_those_of_the_plain_forward(tiny_base: Base) -> None:
    """Against the model's own forward from pixels, one case at a time, its own loss."""
    from engine_samples import chat_text, pixel_inputs

    learner = sides(tiny_base)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.05)
    case = CASES[2]
    pixels = keep_images(tiny_base, IMAGES)
    add_gradients(tiny_base, pixels, encode(tiny_base, pixels, [build_prompt(case, [])]), 8192)
    found = [parameter.grad.clone() for parameter in learner.parameters() if parameter.grad is not None]
    for parameter in learner.parameters():
        parameter.grad = None
    prompt = pixel_inputs(tiny_base, chat_text([(case.question, None)]), [case.image_id])["input_ids"].shape[1]
    whole = chat_text([(case.question, None)]) + f"{case.answer}<|im_end|>"
    inputs = pixel_inputs(tiny_base, whole, [case.image_id])
    labels = inputs["input_ids"].clone()
    labels[:, :prompt] = -100
    tiny_base.model(**inputs, labels=labels).loss.backward()
    expected = [parameter.grad for parameter in learner.parameters()]
    assert len(found) == len(expected) > 8
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_checkpointed_layers_give_the_same_gradients(tiny_folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        base = load_base(str(tiny_folder), device="cpu", gradient_checkpointing=checkpointing)
        learner = sides(base)
        pixels = keep_images(base, IMAGES)
        base.model.train()
        add_gradients(base, pixels, encode(base, pixels, prompts()[:3]), 8192)
        gradients.append([parameter.grad for parameter in learner.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_projector_learns_in_float32_within_a_bfloat16_base(tiny_base: Base) -> None:
    tiny_base.model.to(torch.bfloat16)
    learner = sides(tiny_base)
    assert {parameter.dtype for parameter in learner.parameters()} == {torch.float32}
    learn(learner, keep_images(tiny_base, IMAGES))
    learner.merge()
    assert {parameter.dtype for parameter in tiny_base.model.parameters()} == {torch.bfloat16}


def test_weights_are_switched_back_exactly(tiny_base: Base) -> None:
    learner = sides(tiny_base)
    start = learner.read()
    learn(learner, keep_images(tiny_base, IMAGES))
    assert not same(learner.read(), start)
    learner.switch(start)
    assert same(learner.read(), start)


def test_names_that_a_side_lacks_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(
        StudyError,
        match=r"^Expected stages\.0\.tower_targets to name linear layers of the vision tower, found 'q_proj'",
    ) as error:
        check_layers(str(tiny_folder), None, [("tower", ("qkv", "q_proj"), "stages.0.tower_targets")])
    assert "choose among fc1, fc2, proj, qkv." in str(error.value)
    with pytest.raises(StudyError, match="of the text model, found 'qkv', which it lacks"):
        check_layers(str(tiny_folder), None, [("text", ("qkv",), "stages.0.text_targets")])
    check_layers(str(tiny_folder), None, [("text", ("q_proj",), "one"), ("tower", ("qkv", "fc1"), "other")])
