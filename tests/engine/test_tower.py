"""LoRA on the vision tower in the adapter: exact in features, training, switching, averaging, saving and removal."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from engine_samples import CASES, IMAGES, prompts_with_neighbours, randomised, same
from family_samples import Twin, every_family
from peft import LoraConfig, PeftModel, get_peft_model

from tasks.engine.adapter import State, adapter_files, load_state
from tasks.engine.base import Base, load_base
from tasks.engine.batch import Example, collate, encode
from tasks.engine.engine import Engine
from tasks.engine.generate import generate
from tasks.engine.layers import linear_layers
from tasks.engine.loss import answer_loss
from tasks.engine.pixels import Pixels, keep_images, see_again
from tasks.engine.prompt import build_prompt
from tasks.engine.train import add_gradients, mean_loss, train
from tasks.engine.vision import encode_images
from tasks.errors import StudyError
from tasks.federate.means import weighted_mean

NAMES = ["image-2", "image-0", "image-2"]


def tower_targets(base: Base) -> list[str]:
    layers = {"qwen2_vl": ["qkv"], "qwen2_5_vl": ["qkv"], "fast_vlm": ["expand_conv", "project_conv"]}
    return layers.get(base.config.model_type, ["q_proj", "v_proj"])


def learning(base: Base, projector: bool = False) -> Engine:
    return Engine(base, 4, 8, 0.0, ["q_proj", "v_proj"], projector, tower_targets(base))


def moved(engine: Engine, seed: int) -> State:
    """A state in which every part of the adapter is some steps from the start."""
    start, noise = engine.initial_state(seed), randomised(engine.read(), seed, scale=0.05)
    return {name: tensor + noise[name] for name, tensor in start.items()}


def tower_names(engine: Engine) -> set[str]:
    inside = f"base_model.model.{engine.base.family.tower}."
    return {name for name in engine.read() if name.startswith(inside) and "lora_" in name}


def pixels_of(base: Base) -> Pixels:
    return see_again(base, encode_images(base, IMAGES), IMAGES)


def examples_of(base: Base, features: Pixels) -> list[Example]:
    return encode(base, features, prompts_with_neighbours())


def close(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], most: float = 1e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=most)


@every_family
def test_a_fresh_adapter_leaves_the_base_as_it_is(tiny_base: Base) -> None:
    """Features, and the loss, against the base before it was given an adapter."""
    plain = encode_images(tiny_base, IMAGES)
    reference = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=["q_proj"])
    expected, count = mean_loss(reference, plain, encode(tiny_base, plain, prompts_with_neighbours()), 8192)
    reference.remove()
    engine = learning(tiny_base)
    pixels = see_again(tiny_base, plain, IMAGES)
    assert tower_names(engine)
    for state in (moved(engine, 1), engine.initial_state(0)):
        engine.switch(state)
        fresh = same(state, engine.initial_state(0))
        with torch.inference_mode():
            found = pixels.all_of(NAMES)
        assert (
            all(torch.allclose(one, plain.of(name), atol=1e-5) for one, name in zip(found, NAMES, strict=True)) == fresh
        )
        assert torch.equal(encode_images(tiny_base, IMAGES).rows, plain.rows) == fresh
        loss = mean_loss(engine, pixels, examples_of(tiny_base, pixels), 8192)
        assert (loss == (pytest.approx(expected, abs=1e-5), count)) == fresh
    engine.switch(moved(engine, 1))
    with engine.peft.disable_adapter():
        assert torch.equal(encode_images(tiny_base, IMAGES).rows, plain.rows)


@every_family
def test_grids_are_those_of_the_cached_features(tiny_base: Base) -> None:
    kept = keep_images(tiny_base, IMAGES)
    again = pixels_of(tiny_base)
    assert (again.grids, again.merge, again.projected) == (kept.grids, kept.merge, True)
    assert examples_of(tiny_base, again) == examples_of(tiny_base, kept)


@every_family
def test_fixed_features_are_those_of_the_adapter_that_was_switched_on(tiny_base: Base) -> None:
    engine, pixels = learning(tiny_base), pixels_of(tiny_base)
    before = pixels.fixed(NAMES)
    engine.switch(moved(engine, 1))
    after = pixels.fixed(NAMES)
    assert before.starts.keys() == after.starts.keys() == set(NAMES)
    assert not any(torch.equal(before.of(name), after.of(name)) for name in set(NAMES))
    with torch.inference_mode():
        close(pixels.all_of(NAMES), after.all_of(NAMES))
    assert not after.rows.requires_grad
    assert pixels.fixed([]) is pixels
    assert after.fixed(NAMES) is after


@every_family
def test_gradients_are_those_of_peft_from_pixels(tiny_base: Base, twin: Twin, tiny_folder: Path) -> None:
    """Against a model that PEFT put together and its own forward from pixels, one case at a time, its own loss."""
    engine, pixels = learning(tiny_base), pixels_of(tiny_base)
    state = moved(engine, 1)
    engine.switch(state)
    cases = CASES[:3]
    add_gradients(tiny_base, pixels, encode(tiny_base, pixels, [build_prompt(case, []) for case in cases]), 700)
    found = {name: each.grad for name, each in engine.named_parameters().items() if each.grad is not None}

    other = load_base(str(tiny_folder), device="cpu")
    names = linear_layers(other.model, other.family, "text", ["q_proj", "v_proj"], "")
    names += linear_layers(other.model, other.family, "tower", tower_targets(other), "")
    model = get_peft_model(other.model, LoraConfig(r=4, lora_alpha=8, target_modules=names))
    trainable = {name.replace(".default", ""): each for name, each in model.named_parameters() if each.requires_grad}
    assert trainable.keys() == state.keys()
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state[name])
    counts = []
    for case in cases:
        whole = twin.row(other, [(case.question, None)], [case.image_id], case.answer)
        begun = twin.row(other, [(case.question, None)], [case.image_id], None)["input_ids"].shape[1]
        labels = whole["input_ids"].clone()
        labels[:, :begun] = -100
        counts.append(labels.shape[1] - begun)
        logits = model(**whole).logits[0, begun - 1 : -1]
        torch.nn.functional.cross_entropy(logits, labels[0, begun:], reduction="sum").backward()
    expected = {name: each.grad / sum(counts) for name, each in trainable.items() if each.grad is not None}
    assert found.keys() == expected.keys()
    reached = {name for name in tower_names(engine) if name in found}
    assert reached and all(found[name].any() for name in reached)
    # A CLIP or ViT tower's last layer comes after the one that LLaVA reads: no gradient reaches it.
    unreached = tower_names(engine) - reached
    assert {name.split(".layers.")[1][0] for name in unreached} <= {"2"}
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@every_family
def test_training_changes_the_adapter_alone(tiny_base: Base) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    pixels, engine = pixels_of(tiny_base), learning(tiny_base)
    start = engine.initial_state(0)
    engine.switch(start)
    examples = examples_of(tiny_base, pixels)
    loss, _ = mean_loss(engine, pixels, examples, 8192)
    train(engine, pixels, examples, epochs=3, batch_size=4, tokens=8192, learning_rate=1e-2, seed=0)
    assert mean_loss(engine, pixels, examples, 8192)[0] < loss
    changed = {name for name, tensor in engine.read().items() if not torch.equal(tensor, start[name])}
    assert changed & tower_names(engine)
    engine.remove()
    after = tiny_base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())


@every_family
def test_switching_and_averaging_are_exact(tiny_base: Base) -> None:
    engine, pixels = learning(tiny_base), pixels_of(tiny_base)
    examples = examples_of(tiny_base, pixels)
    states = [moved(engine, seed) for seed in (1, 2)]
    answers = []
    for state in (*states, *states):
        engine.switch(state)
        assert same(engine.read(), state)
        answers.append(generate(engine, pixels, examples, tokens=8192, max_new_tokens=8))
    assert answers[:2] == answers[2:]
    assert answers[0] != answers[1]
    mean = weighted_mean(states, [3, 1])
    engine.switch(mean)
    assert same(engine.read(), mean)
    for name in tower_names(engine):
        torch.testing.assert_close(mean[name], 0.75 * states[0][name] + 0.25 * states[1][name])


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("projector", [False, True])
def test_peft_reads_what_was_saved(tiny_base: Base, tiny_folder: Path, tmp_path: Path, projector: bool) -> None:
    """The answers from pixels of a model that PEFT put together, and its features."""
    engine, pixels = learning(tiny_base, projector), pixels_of(tiny_base)
    state = moved(engine, 1)
    engine.switch(state)
    for name, data in adapter_files(engine.read(), engine.config, "tiny").items():
        (tmp_path / name).write_bytes(data)
    assert same(load_state(tmp_path), state)
    found = pixels.fixed(NAMES).all_of(NAMES)
    loss, _ = mean_loss(engine, pixels, examples_of(tiny_base, pixels), 8192)
    plain = load_base(str(tiny_folder), device="cpu")
    opened = PeftModel.from_pretrained(plain.model, tmp_path)
    opened.eval()
    seen = keep_images(plain, IMAGES)
    with torch.inference_mode():
        close(found, seen.all_of(NAMES))
    total, tokens = 0.0, 0
    for example in examples_of(plain, seen):
        batch = collate(plain, seen, [example])
        with torch.inference_mode():
            total += float(opened(**batch.inputs, labels=batch.labels).loss) * len(example.answer_ids)
        tokens += len(example.answer_ids)
    assert loss == pytest.approx(total / tokens, abs=1e-4)


@every_family
def test_merged_it_is_an_ordinary_model(tiny_base: Base) -> None:
    engine, pixels = learning(tiny_base), pixels_of(tiny_base)
    engine.switch(moved(engine, 1))
    expected, _ = mean_loss(engine, pixels, examples_of(tiny_base, pixels), 8192)
    seen = pixels.fixed(NAMES).all_of(NAMES)
    model = engine.merge()
    assert model is tiny_base.model
    assert not any("lora_" in name for name in model.state_dict())
    features = encode_images(tiny_base, IMAGES)
    close(features.all_of(NAMES), seen, 1e-4)
    batch = collate(tiny_base, features, encode(tiny_base, features, prompts_with_neighbours()))
    with torch.inference_mode():
        assert float(answer_loss(tiny_base, batch)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_adapter_is_float32_whatever_the_base_is(tiny_base: Base, dtype: torch.dtype) -> None:
    tiny_base.model.to(dtype)
    before = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    pixels, engine = pixels_of(tiny_base), learning(tiny_base, projector=True)
    assert {parameter.dtype for parameter in engine.parameters()} == {torch.float32}
    start = moved(engine, 1)
    engine.switch(start)
    assert pixels.fixed(NAMES).rows.dtype == dtype
    examples = examples_of(tiny_base, pixels)
    train(engine, pixels, examples, epochs=1, batch_size=4, tokens=8192, learning_rate=1e-3, seed=0)
    assert not any(torch.equal(engine.read()[name], start[name]) for name in tower_names(engine))
    engine.remove()
    after = tiny_base.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_checkpointed_layers_give_the_same_adapter(tiny_folder: Path) -> None:
    trained = []
    for checkpointing in (False, True):
        base = load_base(str(tiny_folder), device="cpu", gradient_checkpointing=checkpointing)
        engine, pixels = learning(base), pixels_of(base)
        engine.switch(moved(engine, 1))
        train(
            engine, pixels, examples_of(base, pixels),
            epochs=1, batch_size=4, tokens=8192, learning_rate=1e-3, seed=0,
        )  # fmt: skip
        trained.append(engine.read())
    torch.testing.assert_close(trained[1], trained[0], rtol=1e-4, atol=1e-5)


def test_a_layer_that_the_tower_lacks_is_refused(tiny_base: Base) -> None:
    with pytest.raises(
        StudyError, match=r"^Expected lora\.tower_targets to name .* of the vision tower, found 'q_proj'"
    ):
        Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=["q_proj"], tower_targets=["qkv", "q_proj"])
