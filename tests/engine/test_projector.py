"""A projector that learns with the adapter: exact in features, training, switching, averaging, saving and removal."""

from pathlib import Path

import pytest
import torch
from engine_samples import IMAGES, prompts_with_neighbours, randomised, same
from family_samples import every_family
from peft import PeftModel

from tasks.engine.adapter import State, adapter_files, load_state
from tasks.engine.base import Base, load_base
from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.generate import generate
from tasks.engine.loss import answer_loss
from tasks.engine.pixels import keep_images
from tasks.engine.train import add_gradients, mean_loss, train
from tasks.engine.vision import Features, encode_images, load_features
from tasks.federate.means import weighted_mean


def learning(base: Base) -> Engine:
    return Engine(base, r=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"], projector=True)


def moved(engine: Engine, seed: int) -> State:
    """A state whose projector is some steps from the base's."""
    start, noise = engine.initial_state(seed), randomised(engine.read(), seed, scale=0.02)
    return {name: tensor + noise[name] for name, tensor in start.items()}


def projector_names(engine: Engine) -> set[str]:
    return {name for name in engine.read() if "lora_" not in name}


@every_family
def test_rows_of_the_tower_give_what_features_behind_the_projector_do(tiny_base: Base, tmp_path: Path) -> None:
    features, rows = (encode_images(tiny_base, IMAGES, projected=each) for each in (True, False))
    assert (features.projected, rows.projected) == (True, False)
    assert rows.grids == features.grids
    assert rows.starts == features.starts
    (tmp_path / "rows").write_bytes(rows.to_bytes())
    read = load_features(tmp_path / "rows")
    assert not read.projected
    names = ["image-2", "image-0", "image-2"]
    with torch.inference_mode():
        made = tiny_base.family.project(tiny_base.model, read.all_of(names))
    for found, expected in zip(made, features.all_of(names), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    again = encode_images(tiny_base, IMAGES)  # the projector stands in its place again
    assert torch.equal(again.rows, features.rows)


@every_family
def test_a_fresh_adapter_leaves_the_base_as_it_is(tiny_base: Base, tiny_folder: Path) -> None:
    plain = load_base(str(tiny_folder), device="cpu")
    features, rows = encode_images(plain, IMAGES), encode_images(tiny_base, IMAGES, projected=False)
    prompts, engine = prompts_with_neighbours(), learning(tiny_base)
    for state in (moved(engine, 1), engine.initial_state(0)):
        engine.switch(state)
        found, count = mean_loss(engine, rows, encode(tiny_base, rows, prompts), 8192)
        reference = Engine(plain, r=4, alpha=8, dropout=0.0, targets=["q_proj"])
        expected, tokens = mean_loss(reference, features, encode(plain, features, prompts), 8192)
        reference.remove()
        assert count == tokens
        assert (found == pytest.approx(expected, abs=1e-5)) == same(state, engine.initial_state(0))
    with engine.peft.disable_adapter():
        found, _ = mean_loss(engine, rows, encode(tiny_base, rows, prompts), 8192)
    assert found == pytest.approx(expected, abs=1e-5)


@every_family
def test_gradients_are_those_of_images_through_tower_and_projector(tiny_base: Base) -> None:
    """Tower rows that were computed once against the whole way from pixels."""
    engine, prompts = learning(tiny_base), prompts_with_neighbours()
    engine.switch(moved(engine, 1))
    rows, pixels = encode_images(tiny_base, IMAGES, projected=False), keep_images(tiny_base, IMAGES)
    gradients = []
    for features in (rows, pixels):
        add_gradients(tiny_base, features, encode(tiny_base, features, prompts), 700)
        learned = engine.named_parameters().items()
        gradients.append({name: each.grad.clone() for name, each in learned if each.grad is not None})
        for parameter in engine.parameters():
            parameter.grad = None
    found, expected = gradients
    assert found.keys() == expected.keys() == engine.read().keys()
    assert all(found[name].any() for name in projector_names(engine))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@every_family
def test_training_changes_the_adapter_alone(tiny_base: Base) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    rows, engine = encode_images(tiny_base, IMAGES, projected=False), learning(tiny_base)
    start = engine.initial_state(0)
    engine.switch(start)
    examples = encode(tiny_base, rows, prompts_with_neighbours())
    loss, _ = mean_loss(engine, rows, examples, 8192)
    train(engine, rows, examples, epochs=3, batch_size=4, tokens=8192, learning_rate=1e-2, seed=0)
    assert mean_loss(engine, rows, examples, 8192)[0] < loss
    changed = {name for name, tensor in engine.read().items() if not torch.equal(tensor, start[name])}
    assert changed >= projector_names(engine)
    engine.remove()
    after = tiny_base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_projector_is_float32_whatever_the_base_is(tiny_base: Base, dtype: torch.dtype) -> None:
    tiny_base.model.to(dtype)
    before = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    rows, engine = encode_images(tiny_base, IMAGES, projected=False), learning(tiny_base)
    assert {parameter.dtype for parameter in engine.parameters()} == {torch.float32}
    state = moved(engine, 1)
    engine.switch(state)
    assert same(engine.read(), state)
    batch = collate(tiny_base, rows, encode(tiny_base, rows, prompts_with_neighbours()))
    assert batch.inputs["mm_encoder_outputs"]["image"].pooler_output[0].dtype == dtype
    engine.remove()
    after = tiny_base.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@every_family
def test_switching_and_averaging_are_exact(tiny_base: Base) -> None:
    engine = learning(tiny_base)
    rows = encode_images(tiny_base, IMAGES, projected=False)
    examples = encode(tiny_base, rows, prompts_with_neighbours())
    states = [moved(engine, seed) for seed in (1, 2)]
    answers = []
    for state in (*states, *states):
        engine.switch(state)
        assert same(engine.read(), state)
        answers.append([each.text for each in generate(engine, rows, examples, tokens=8192, max_new_tokens=8)])
    assert answers[:2] == answers[2:]
    mean = weighted_mean(states, [3, 1])
    engine.switch(mean)
    assert same(engine.read(), mean)
    for name in projector_names(engine):
        torch.testing.assert_close(mean[name], 0.75 * states[0][name] + 0.25 * states[1][name])


@every_family
def test_peft_reads_what_was_saved(tiny_base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    """The loss from pixels of a model that PEFT put together."""
    engine = learning(tiny_base)
    state = moved(engine, 1)
    engine.switch(state)
    for name, data in adapter_files(engine.read(), engine.config, "tiny").items():
        (tmp_path / name).write_bytes(data)
    assert same(load_state(tmp_path), state)
    rows = encode_images(tiny_base, IMAGES, projected=False)
    found, _ = mean_loss(engine, rows, encode(tiny_base, rows, prompts_with_neighbours()), 8192)
    plain = load_base(str(tiny_folder), device="cpu")
    opened = PeftModel.from_pretrained(plain.model, tmp_path)
    opened.eval()
    pixels: Features = keep_images(plain, IMAGES)
    total, tokens = 0.0, 0
    for example in encode(plain, pixels, prompts_with_neighbours()):
        batch = collate(plain, pixels, [example])
        with torch.inference_mode():
            total += float(opened(**batch.inputs, labels=batch.labels).loss) * len(example.answer_ids)
        tokens += len(example.answer_ids)
    assert found == pytest.approx(total / tokens, abs=1e-4)


@every_family
def test_merged_it_is_an_ordinary_model(tiny_base: Base) -> None:
    engine, prompts = learning(tiny_base), prompts_with_neighbours()
    engine.switch(moved(engine, 1))
    rows = encode_images(tiny_base, IMAGES, projected=False)
    expected, _ = mean_loss(engine, rows, encode(tiny_base, rows, prompts), 8192)
    model = engine.merge()
    assert model is tiny_base.model
    assert not any("modules_to_save" in name or "lora_" in name for name in model.state_dict())
    features = encode_images(tiny_base, IMAGES)
    batch = collate(tiny_base, features, encode(tiny_base, features, prompts))
    with torch.inference_mode():
        assert float(answer_loss(tiny_base, batch)) == pytest.approx(expected, abs=1e-4)
