"""Images of fewer tokens: the tower's map pooled before the projector, in every family whose images are squares."""

from pathlib import Path

import pytest
import torch
from engine_samples import IMAGES, answer_texts, prompts_with_neighbours
from family_samples import Twin, pictures

from tasks.engine.base import Base, load_base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.pixels import keep_images
from tasks.engine.train import add_gradients
from tasks.engine.vision import encode_images
from tasks.errors import StudyError

square = pytest.mark.parametrize("twin", ["smol-clip", "llava", "paligemma"], indirect=True)
"""Their maps are 4 x 4."""


def maps(base: Base) -> torch.Tensor:
    """What the projector is given for each image, `(images, tokens, d)`."""
    given: list[torch.Tensor] = []
    projector = base.model.get_submodule(base.family.projector)
    handle = projector.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    shown = pictures([image.id for image in IMAGES])
    base.model.get_image_features(pixel_values=base.image_processor(images=shown, return_tensors="pt")["pixel_values"])
    handle.remove()
    return given[0]


def means(rows: torch.Tensor, edge: int, fewer: int) -> torch.Tensor:
    """Each region's mean, one by one: from the floor of its start to the ceiling of its end."""
    made = []
    for down in range(fewer):
        for across in range(fewer):
            spans = [(at * edge // fewer, -(-(at + 1) * edge // fewer)) for at in (down, across)]
            inside = [y * edge + x for y in range(*spans[0]) for x in range(*spans[1])]
            made.append(rows[inside].mean(0))
    return torch.stack(made)


@square
@pytest.mark.parametrize("tokens", [1, 4, 9, 16])
@torch.inference_mode()
def test_pooled_rows_are_means_of_regions(tiny_folder: Path, tokens: int) -> None:
    base = load_base(str(tiny_folder), device="cpu", image_tokens=tokens)
    features, rows = (encode_images(base, IMAGES, projected=each) for each in (True, False))
    assert (features.projected, rows.projected) == (True, False)
    project = base.model.get_submodule(base.family.projector)
    for image, own in zip(IMAGES, maps(base), strict=True):
        expected = means(own, 4, round(tokens**0.5))
        torch.testing.assert_close(rows.of(image.id), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(features.of(image.id), project(expected), rtol=0, atol=1e-5)
        assert features.shape(image.id) == (round(tokens**0.5), round(tokens**0.5))
        assert features.tokens(image.id) == tokens
    assert keep_images(base, IMAGES).grids == features.grids == rows.grids


@square
def test_prompts_are_shorter_and_answered(tiny_folder: Path) -> None:
    lengths, answers = [], []
    for tokens in (None, 4):
        base = load_base(str(tiny_folder), device="cpu", image_tokens=tokens)
        features = encode_images(base, IMAGES)
        engine = Engine(base, r=4, alpha=8, dropout=0.0, targets=["q_proj"])
        examples = encode(base, features, prompts_with_neighbours())
        lengths.append([len(example) for example in examples])
        answers.append(answer_texts(engine, features, examples, tokens=8192, max_new_tokens=6))
    images = [len(prompt.image_ids) for prompt in prompts_with_neighbours()]
    assert [one - 12 * count for one, count in zip(lengths[0], images, strict=True)] == lengths[1]
    assert answers[0] != answers[1]


@square
def test_a_projector_learns_the_same_from_pixels_and_from_pooled_rows(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder), device="cpu", image_tokens=4)
    engine = Engine(base, r=4, alpha=8, dropout=0.0, targets=["q_proj"], projector=True)
    gradients = []
    for features in (encode_images(base, IMAGES, projected=False), keep_images(base, IMAGES)):
        add_gradients(base, features, encode(base, features, prompts_with_neighbours()), 8192)
        learned = engine.named_parameters().items()
        gradients.append({name: each.grad.clone() for name, each in learned if each.grad is not None})
        for parameter in engine.parameters():
            parameter.grad = None
    assert any("lora_" not in name and each.any() for name, each in gradients[0].items())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


@square
def test_more_tokens_than_there_are_is_refused(twin: Twin, tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder), device="cpu", image_tokens=25)
    with pytest.raises(StudyError, match=r"^Expected model\.image_tokens to be at most .* found 25 and 16 tokens"):
        encode_images(base, IMAGES)


@pytest.mark.parametrize("twin", ["qwen2-vl", "qwen2.5-vl"], indirect=True)
def test_a_tower_that_joins_patches_itself_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(StudyError, match=r"^Expected no model\.image_tokens for .* joins patches itself, found 4"):
        load_base(str(tiny_folder), device="cpu", image_tokens=4)


@pytest.mark.parametrize("twin", ["smol-clip"], indirect=True)
def test_batch_statistics_stay_while_the_model_trains(tiny_base: Base) -> None:
    """A convolutional tower gives the same of an image whatever else is in its batch, and is changed by none."""
    before = {name: each.clone() for name, each in tiny_base.model.named_buffers()}
    expected = encode_images(tiny_base, IMAGES).rows
    tiny_base.model.train()
    found = torch.cat(keep_images(tiny_base, IMAGES).all_of([image.id for image in IMAGES]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert all(torch.equal(each, before[name]) for name, each in tiny_base.model.named_buffers())
