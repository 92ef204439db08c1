"""Maps of where an answer comes from, against transformers' own attention, plain loops, and explicit re-encoding."""

import io
from dataclasses import replace
from typing import Any

import engine_samples
import family_samples
import numpy as np
import PIL.Image
import pytest
import torch
from engine_samples import CASES, IMAGES, randomised
from family_samples import Twin, every_family

from tasks.engine.attribution.attention import eager, trace
from tasks.engine.attribution.layout import (
    FORMAT,
    PARTS,
    QUERY_IMAGE,
    QUESTION,
    RETRIEVED_IMAGES,
    RETRIEVED_TEXT,
    layout,
)
from tasks.engine.attribution.occlusion import answer_log_probs, boxes, cover, occlude_parts, occlude_regions
from tasks.engine.base import Base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.prompt import Prompt, build_prompt, build_prompt_without_image
from tasks.engine.vision import Features, encode_images
from tasks.explain.maps import as_map, attention_row, coverage, entropy, relevance_row, rollout_row, share_by_part
from tasks.records import Image
from tasks.records.pixels import to_rgb
from tasks.settings import ContextSettings

PICTURES = {image.id: image for image in IMAGES}
RETRIEVED = [CASES[4], CASES[2]]
QUERY = CASES[1]
TURNS = [*((case.question, case.answer) for case in reversed(RETRIEVED)), (QUERY.question, None)]


def prompt() -> Prompt:
    return build_prompt(QUERY, RETRIEVED)


@every_family
def test_attention_is_that_of_transformers_from_pixels(twin: Twin, engine: Engine, features: Features) -> None:
    engine.switch(randomised(engine.read(), 1))
    base = engine.base
    (example,) = encode(base, features, [prompt()])
    used = {id(each): each._attn_implementation for each in (base.model.config, base.model.config.text_config)}
    found = trace(base, features, example)
    expected = twin.row(base, TURNS, example.image_ids, None)
    with eager(base), torch.inference_mode():
        weights = base.model(**expected, output_attentions=True).attentions
    assert len(found.weights) == len(weights) == base.config.get_text_config().num_hidden_layers
    for ours, theirs in zip(found.attention(), weights, strict=True):
        assert found.prompt_length == theirs.shape[-1]
        np.testing.assert_allclose(ours[:, : found.prompt_length, : found.prompt_length], theirs[0].numpy(), atol=1e-5)
    now = {id(each): each._attn_implementation for each in (base.model.config, base.model.config.text_config)}
    assert now == used
    # Nothing of it changes what is answered.
    plain = answer_log_probs(base, features, [example], 8192)[0]
    np.testing.assert_allclose(found.log_probs.detach().numpy(), plain, atol=1e-4)


def test_the_gradient_is_that_of_a_small_change(
    engine: Engine, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight is changed where the model computes it, and the answer's log-probability is looked at."""
    from transformers.models.qwen2_vl import modeling_qwen2_vl as modeling

    engine.switch(randomised(engine.read(), 1))
    base = engine.base
    base.model.double()
    wide = replace(features, rows=features.rows.double())
    (example,) = encode(base, wide, [prompt()])
    gradients = trace(base, wide, example).gradients(1)
    plain = modeling.eager_attention_forward

    def changed(layer: int, head: int, row: int, column: int, by: float) -> float:
        def forward(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
            made, weights = plain(module, query, key, value, mask, **rest)
            if module.layer_idx == layer:
                made = made.clone()
                made[0, row, head] += by * modeling.repeat_kv(value, module.num_key_value_groups)[0, head, column]
            return made, weights

        monkeypatch.setattr(modeling, "eager_attention_forward", forward)
        return float(trace(base, wide, example).log_probs[1].detach())

    last = len(example.prompt_ids)
    for spot in ((0, 0, last, 5), (0, 1, 40, 3), (1, 1, last, last - 2)):
        slope = (changed(*spot, 1e-2) - changed(*spot, -1e-2)) / 2e-2
        layer, *inside = spot
        assert abs(slope) > 1e-3
        assert gradients[layer][tuple(inside)] == pytest.approx(slope, rel=1e-2, abs=1e-4)


@every_family
def test_every_token_of_a_prompt_belongs_to_its_part(tiny_base: Base, features: Features) -> None:
    (example,) = encode(tiny_base, features, [prompt()])
    found = layout(tiny_base, features, prompt())
    ids = np.array(example.prompt_ids)
    assert len(found.parts) == len(ids)
    images = (found.parts == QUERY_IMAGE) | (found.parts == RETRIEVED_IMAGES)
    assert ((ids == tiny_base.image_token_id) == images).all()

    def text(part: int) -> str:
        return " ".join(tiny_base.tokenizer.decode(ids[found.parts == part]).replace("\n", " ").split())

    assert text(QUESTION).replace(" ", "") == QUERY.question.replace(" ", "")
    written = [words for case in reversed(RETRIEVED) for words in (case.question, case.answer)]
    assert text(RETRIEVED_TEXT).replace(" ", "") == "".join(written).replace(" ", "")
    assert not any(word in text(FORMAT) for word in ("nodule", "imaging", "body", "?"))
    assert [place.image_id for place in found.places] == list(example.image_ids)
    assert [place.retrieved for place in found.places] == [True, True, False]
    for place in found.places:
        kind = RETRIEVED_IMAGES if place.retrieved else QUERY_IMAGE
        assert (found.parts[place.positions] == kind).all()
        assert (place.rows, place.columns) == features.shape(place.image_id)


@every_family
@pytest.mark.parametrize("show", ["images+text", "text"])
def test_quoted_cases_are_kept_apart_from_the_question(tiny_base: Base, features: Features, show: Any) -> None:
    how = ContextSettings(quote=True, show=show, order="nearest first", say_similarity=True)
    quoting = build_prompt(QUERY, RETRIEVED, [0.9, 0.5], how)
    (example,) = encode(tiny_base, features, [quoting])
    found = layout(tiny_base, features, quoting)
    ids = np.array(example.prompt_ids)
    question, retrieved = (tiny_base.tokenizer.decode(ids[found.parts == part]) for part in (QUESTION, RETRIEVED_TEXT))
    assert question.replace(" ", "").strip() == QUERY.question.replace(" ", "")
    assert all(case.answer.split()[0] in retrieved for case in RETRIEVED[1:])
    assert QUERY.question not in retrieved
    assert [place.retrieved for place in found.places] == [True, True, False][-len(quoting.image_ids) :]


@every_family
def test_blanks_and_marks_in_a_question_do_not_mislead(tiny_base: Base, features: Features) -> None:
    odd = build_prompt_without_image(replace(QUERY, question="  \ue000 assistant a <image> ?\n "))
    (example,) = encode(tiny_base, features, [odd])
    found = layout(tiny_base, features, odd)
    assert len(found.parts) == len(example.prompt_ids)
    ids = np.array(example.prompt_ids)
    said = tiny_base.tokenizer.decode(ids[found.parts == QUESTION]).strip()
    assert said.startswith("\ue000") and said.endswith("?")
    assert found.places == ()


def random_layers(seed: int, positions: int = 7) -> list[Any]:
    rng = np.random.default_rng(seed)
    layers = np.tril(rng.random((3, 2, positions, positions)))
    return list((layers / layers.sum(-1, keepdims=True)).astype(np.float32))


def test_rollout_is_the_product_of_a_plain_loop() -> None:
    layers = random_layers(0)
    size = layers[0].shape[-1]
    rolled = np.eye(size)
    for layer in layers:
        mixed = np.zeros((size, size))
        for i in range(size):
            for j in range(size):
                mixed[i, j] = 0.5 * sum(head[i, j] for head in layer) / len(layer) + 0.5 * (i == j)
            mixed[i] /= mixed[i].sum()
        rolled = mixed @ rolled
    for position in range(size):
        expected = rolled[position].copy()
        expected[position] = 0
        np.testing.assert_allclose(rollout_row(layers, position), expected, atol=1e-6)


def test_relevance_is_the_update_rule_of_the_paper() -> None:
    layers, rng = random_layers(1), np.random.default_rng(2)
    gradients = [rng.normal(size=layer.shape).astype(np.float32) for layer in layers]
    size = layers[0].shape[-1]
    relevance = np.eye(size)
    for layer, gradient in zip(layers, gradients, strict=True):
        relevance = relevance + np.maximum(layer * gradient, 0).mean(0) @ relevance
    for position in range(size):
        expected = relevance[position].copy()
        expected[position] = 0
        np.testing.assert_allclose(relevance_row(layers, gradients, position), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        attention_row(layers, 3), sum(layer.mean(0)[3] for layer in layers) / len(layers), atol=1e-6
    )


@every_family
def test_shares_sum_to_one(engine: Engine, features: Features) -> None:
    engine.switch(randomised(engine.read(), 1))
    (example,) = encode(engine.base, features, [prompt()])
    found = layout(engine.base, features, prompt())
    traced = trace(engine.base, features, example)
    layers = traced.attention()
    for token in range(len(example.answer_ids)):
        row = traced.prompt_length - 1 + token
        rows = [
            rollout_row(layers, row),
            relevance_row(layers, traced.gradients(token), row),
            attention_row(layers, row),
        ]
        for each in rows:
            shares = share_by_part(each, found.parts, PARTS)
            assert sum(shares.values()) == pytest.approx(1)
            assert all(value > 0 for value in shares.values())
    assert share_by_part(np.zeros(5), np.zeros(5, np.int8), PARTS) == dict.fromkeys(PARTS, 0.0)


def painted(image: Image, box: tuple[int, int, int, int]) -> Image:
    pixels = np.asarray(to_rgb(image.data)).copy()
    left, upper, right, lower = box
    pixels[upper:lower, left:right] = pixels.reshape(-1, 3).mean(0).round()
    sink = io.BytesIO()
    PIL.Image.fromarray(pixels).save(sink, "PNG")
    return replace(image, data=sink.getvalue())


@every_family
def test_occlusion_is_the_difference_from_a_painted_picture(
    twin: Twin, engine: Engine, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The painted image goes from its pixels through the whole model, without anything that was kept."""
    engine.switch(randomised(engine.read(), 1))
    base = engine.base
    (example,) = encode(base, features, [prompt()])
    place, prompt_length = 1, len(example.prompt_ids)
    image = PICTURES[example.image_ids[place]]
    falls = occlude_regions(base, features, PICTURES, example, place, (2, 3), 8192)
    assert falls.shape == (2, 3, len(example.answer_ids))

    def log_probs(images: list[Image]) -> Any:
        for module in (engine_samples, family_samples):
            monkeypatch.setattr(module, "IMAGES", images)
        inputs = twin.row(base, [*TURNS[:-1], (QUERY.question, None)], example.image_ids, QUERY.answer)
        with torch.inference_mode():
            chances = base.model(**inputs).logits[0, prompt_length - 1 : -1].log_softmax(-1)
        return chances.gather(1, torch.tensor(example.answer_ids).unsqueeze(1)).squeeze(1).numpy()

    whole = log_probs(IMAGES)
    assert np.abs(falls).max() > 1e-3
    for number, box in enumerate(boxes(base, image, 2, 3)):
        other = [painted(image, box) if each is image else each for each in IMAGES]
        np.testing.assert_allclose(falls[divmod(number, 3)], whole - log_probs(other), atol=2e-4)


@every_family
def test_parts_are_covered_wholly(engine: Engine, features: Features) -> None:
    engine.switch(randomised(engine.read(), 1))
    base = engine.base
    (example,) = encode(base, features, [prompt()])
    found = layout(base, features, prompt())
    falls = occlude_parts(base, features, PICTURES, example, found, 8192)
    assert falls.shape == (4, len(example.answer_ids))
    blank = painted(PICTURES[QUERY.image_id], (0, 0, 10_000, 10_000))
    seen = encode_images(base, [blank, *(each for each in IMAGES if each.id != blank.id)])
    whole, other = (answer_log_probs(base, each, [example], 8192)[0] for each in (features, seen))
    np.testing.assert_allclose(falls[QUERY_IMAGE], whole - other, atol=1e-5)
    words = np.where(found.parts == QUESTION, base.tokenizer.pad_token_id, example.prompt_ids)
    (other,) = answer_log_probs(base, features, [replace(example, prompt_ids=tuple(words.tolist()))], 8192)
    np.testing.assert_allclose(falls[QUESTION], whole - other, atol=1e-5)
    alone = build_prompt(QUERY, [])
    (example,) = encode(base, features, [alone])
    falls = occlude_parts(base, features, PICTURES, example, layout(base, features, alone), 8192)
    assert not falls[[RETRIEVED_IMAGES, RETRIEVED_TEXT]].any()
    assert falls[[QUERY_IMAGE, QUESTION]].all()


@pytest.mark.parametrize("twin", ["llava", "qwen2-vl", "paligemma"], indirect=True)
def test_boxes_are_what_the_tower_sees(twin: Twin, tiny_base: Base) -> None:
    """LLaVA's processor crops the middle: painting outside of it changes nothing it sees."""
    wide = PICTURES["image-1"]  # 140 x 60
    found = boxes(tiny_base, wide, 4, 4)
    seen = (found[0][0], found[0][1], found[-1][2], found[-1][3])
    assert seen == ((40, 0, 100, 60) if tiny_base.family.model_types == ("llava",) else (0, 0, 140, 60))
    outside = cover(wide, [(0, 0, 36, 60), (104, 0, 140, 60)], "sides")
    one, other = (encode_images(tiny_base, [each]).rows for each in (wide, outside))
    same = torch.allclose(one, other, atol=1e-3)
    assert same == (tiny_base.family.model_types == ("llava",))


def test_maps() -> None:
    weights = np.array([[3.0, -1.0], [0.0, 1.0]])
    np.testing.assert_allclose(as_map(weights), [[0.75, 0], [0, 0.25]])
    np.testing.assert_allclose(as_map(-weights.clip(0)), np.full((2, 2), 0.25))
    assert entropy(np.ones((3, 3))) == pytest.approx(1)
    assert entropy(np.eye(3)[:1]) == 0
    mask = np.zeros((6, 9), dtype=bool)
    mask[:3, :3] = mask[4, 8] = True
    np.testing.assert_allclose(coverage(mask, 2, 3), [[1, 0, 0], [0, 0, 1 / 9]])
    assert coverage(mask, 2, 3).sum() * 9 == mask.sum()
