"""Images of fewer tokens, in every family whose images are squares: the tower's map pooled before the projector, and
retrieved images pooled again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_samples import IMAGES, answer_texts, prompts_with_neighbours
from family_samples import Twin, pictures

from tasks.engine.attribution.layout import QUERY_IMAGE, RETRIEVED_IMAGES, layout
from tasks.engine.attribution.occlusion import answer_log_probs, cover, occlude_parts, without
from tasks.engine.base import Base, load_base
from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.pixels import keep_images
from tasks.engine.thumbnail import original, thumbnail
from tasks.engine.train import add_gradients
from tasks.engine.vision import encode_images, gather_features
from tasks.errors import StudyError
from tasks.settings import ModelSettings, RetrievalSettings, Study

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


@pytest.mark.parametrize("twin", ["smol-clip", "llava", "paligemma", "qwen2-vl"], indirect=True)
@pytest.mark.parametrize("projected", [True, False])
@torch.inference_mode()
def test_retrieved_images_are_the_same_images_pooled(tiny_folder: Path, tiny_base: Base, projected: bool) -> None:
    """Only images that are squares of tokens: the first, and all of a tower that makes squares of them."""
    features = encode_images(tiny_base, IMAGES, projected=projected)
    images = [image.id for image in IMAGES if len({*features.shape(image.id)}) == 1]
    for image in images:
        small, edge = thumbnail(image, 4), features.shape(image)[0]
        torch.testing.assert_close(features.of(small), means(features.of(image), edge, 2), rtol=0, atol=1e-5)
        assert (features.tokens(small), features.shape(small)) == (4, (2, 2))
        copied = gather_features({"other": (features, small), small: (features, small)})
        assert torch.equal(copied.of("other"), copied.of(small)) and copied.grid("other") == features.grid(small)
        assert torch.equal(copied.of(small), features.of(small))
    if projected:
        seen = keep_images(tiny_base, IMAGES)
        small = [thumbnail(image, 1) for image in images]
        for one, other in zip(seen.all_of([*small, *images]), features.all_of([*small, *images]), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@square
def test_prompts_with_smaller_retrieved_images_are_shorter_and_answered(tiny_base: Base) -> None:
    features = encode_images(tiny_base, IMAGES)
    engine = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=["q_proj"])
    whole, fewer = (prompts_with_neighbours(image_tokens=tokens) for tokens in (None, 4))
    examples = [encode(tiny_base, features, prompts) for prompts in (whole, fewer)]
    lengths = [[len(example) for example in each] for each in examples]
    assert [one - 12 * len(p.retrieved_ids) for one, p in zip(lengths[0], whole, strict=True)] == lengths[1]
    texts = [answer_texts(engine, features, each, tokens=8192, max_new_tokens=6) for each in examples]
    assert texts[0] != texts[1] and texts[0][0] == texts[1][0]  # the first shows no case


@square
def test_covering_a_smaller_retrieved_image_covers_that_image(tiny_base: Base) -> None:
    features = encode_images(tiny_base, IMAGES)
    prompt = prompts_with_neighbours(image_tokens=4)[3]
    (example,) = encode(tiny_base, features, [prompt])
    found = layout(tiny_base, features, prompt)
    assert [(place.image_id, place.rows) for place in found.places] == [
        *((original(name), 2) for name in prompt.image_ids[:3]),
        (prompt.image_ids[3], 4),
    ]
    pictures_by_id = {image.id: image for image in IMAGES}
    falls = occlude_parts(tiny_base, features, pictures_by_id, example, found, 8192)
    assert falls[[QUERY_IMAGE, RETRIEVED_IMAGES]].all()
    shown = original(prompt.image_ids[0])
    blank = cover(pictures_by_id[shown], [(0, 0, 10_000, 10_000)], shown)
    other = encode_images(tiny_base, [blank if image.id == shown else image for image in IMAGES])
    (whole,), (hidden,) = (answer_log_probs(tiny_base, each, [example], 8192) for each in (features, other))
    single = without(tiny_base, features, pictures_by_id, example, 0, [[(0, 0, 10_000, 10_000)]], 8192)
    np.testing.assert_allclose(single[0], hidden, atol=1e-5)
    assert np.abs(whole - hidden).max() > 1e-5


@square
def test_more_tokens_of_a_retrieved_image_than_there_are_is_refused(tiny_base: Base) -> None:
    features = encode_images(tiny_base, IMAGES)
    prompts = prompts_with_neighbours(image_tokens=25)
    with pytest.raises(StudyError, match=r"^Expected retrieval\.image_tokens to be at most .* found 25 and 16 tokens"):
        collate(tiny_base, features, encode(tiny_base, features, prompts))


def test_retrieved_images_of_more_tokens_than_the_questions_are_no_study() -> None:
    with pytest.raises(ValueError, match=r"at most those of the question's image, found 16 and model\.image_tokens 9"):
        Study(model=ModelSettings(image_tokens=9), retrieval=RetrievalSettings(image_tokens=16))


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
