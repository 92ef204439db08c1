"""Training: reproducible to the byte, on the adapter alone, and it learns."""

import pytest
import torch
from engine_samples import CASES, prompts_with_neighbours, same
from family_samples import every_family

from tasks.engine.adapter import State, adapter_files
from tasks.engine.base import Base, load_base
from tasks.engine.batch import Example, collate, encode
from tasks.engine.engine import Engine
from tasks.engine.generate import generate
from tasks.engine.loss import answer_loss
from tasks.engine.prompt import build_prompt
from tasks.engine.train import mean_loss, train
from tasks.engine.vision import Features


@pytest.fixture
def examples(tiny_base: Base, features: Features) -> list[Example]:
    return encode(tiny_base, features, prompts_with_neighbours())


def fresh(base: Base, dropout: float) -> Engine:
    return Engine(base, r=4, alpha=8, dropout=dropout, targets=["q_proj", "v_proj"])


def trained(
    engine: Engine, features: Features, examples: list[Example], seed: int, start: int = 0, epochs: int = 2
) -> State:
    engine.switch(engine.initial_state(start))
    train(engine, features, examples, epochs=epochs, batch_size=3, learning_rate=1e-2, seed=seed)
    return engine.read()


@every_family
def test_the_same_seed_gives_the_same_bytes(
    engine: Engine, features: Features, examples: list[Example], tiny_folder: object
) -> None:
    first = trained(engine, features, examples, seed=5)
    torch.manual_seed(1234)  # whatever ran before
    again = trained(engine, features, examples, seed=5)
    other = fresh(load_base(str(tiny_folder), device="cpu"), dropout=0.1)
    elsewhere = trained(other, features, examples, seed=5)
    assert adapter_files(first, engine.config, "tiny") == adapter_files(again, engine.config, "tiny")
    assert adapter_files(first, engine.config, "tiny") == adapter_files(elsewhere, other.config, "tiny")


def test_another_seed_gives_another_order(tiny_base: Base, features: Features, examples: list[Example]) -> None:
    engine = fresh(tiny_base, dropout=0.0)
    assert not same(trained(engine, features, examples, seed=5), trained(engine, features, examples, seed=6))


def test_dropout_follows_the_seed(tiny_base: Base, features: Features, examples: list[Example]) -> None:
    engine = fresh(tiny_base, dropout=0.5)
    one = examples[:1]  # one example has one order: only dropout is left to chance
    assert same(trained(engine, features, one, seed=5), trained(engine, features, one, seed=5))
    assert not same(trained(engine, features, one, seed=5), trained(engine, features, one, seed=6))


def test_without_dropout_one_example_has_nothing_to_chance(
    tiny_base: Base, features: Features, examples: list[Example]
) -> None:
    engine = fresh(tiny_base, dropout=0.0)
    one = examples[:1]
    assert same(trained(engine, features, one, seed=5), trained(engine, features, one, seed=6))


@every_family
def test_the_base_is_untouched(engine: Engine, features: Features, examples: list[Example]) -> None:
    def frozen() -> State:
        tensors = {**dict(engine.peft.named_parameters()), **dict(engine.peft.named_buffers())}
        return {name: tensor.detach().clone() for name, tensor in tensors.items() if "lora_" not in name}

    before, start = frozen(), engine.read()
    assert len(before) > 50
    trained(engine, features, examples, seed=5)
    assert same(frozen(), before)
    changed = engine.read()
    assert all(not torch.equal(changed[name], start[name]) for name in start)


@every_family
def test_only_the_adapter_has_gradients(engine: Engine, features: Features, examples: list[Example]) -> None:
    trained(engine, features, examples, seed=5, epochs=1)
    assert all(parameter.grad is None for parameter in engine.peft.parameters())
    engine.peft.train()
    answer_loss(engine.base, collate(engine.base, features, examples, answers=True)).backward()
    graded = {name for name, parameter in engine.peft.named_parameters() if parameter.grad is not None}
    assert len(graded) == len(engine.read())
    assert all("lora_" in name for name in graded)
    assert {id(parameter) for parameter in engine.parameters()} == {
        id(parameter) for parameter in engine.peft.parameters() if parameter.grad is not None
    }


def test_the_engine_is_left_for_inference(engine: Engine, features: Features, examples: list[Example]) -> None:
    trained(engine, features, examples, seed=5)
    assert not any(module.training for module in engine.peft.modules())
    assert mean_loss(engine, features, examples, 3) == mean_loss(engine, features, examples, 3)


def test_so_it_is_where_training_was_broken_off(engine: Engine, features: Features, examples: list[Example]) -> None:
    def interrupt(_: torch.Tensor) -> None:
        raise KeyboardInterrupt

    engine.parameters()[0].register_post_accumulate_grad_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(engine, features, examples, seed=5)
    assert not any(module.training for module in engine.peft.modules())
    assert all(parameter.grad is None for parameter in engine.peft.parameters())


@every_family
def test_it_learns_eight_examples_by_heart(tiny_base: Base, features: Features) -> None:
    """Its answers end where they were taught to, each at its own length."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    engine = Engine(tiny_base, r=16, alpha=32, dropout=0.0, targets=targets)
    examples = encode(engine.base, features, [build_prompt(case, []) for case in CASES])
    engine.switch(engine.initial_state(0))
    before, tokens = mean_loss(engine, features, examples, 8)
    assert tokens == sum(len(example.answer_ids) for example in examples)
    loss, steps = train(engine, features, examples, epochs=60, batch_size=8, learning_rate=3e-3, seed=0)
    after, _ = mean_loss(engine, features, examples, 8)
    assert steps == 60
    assert after < loss < before
    assert after < before * 0.6  # the tiny model's logits are bounded, and so its loss from below
    assert generate(engine, features, examples, batch_size=8, max_new_tokens=24) == [case.answer for case in CASES]


def test_the_loss_told_is_the_mean_over_answer_tokens(
    tiny_base: Base, features: Features, examples: list[Example]
) -> None:
    """At a learning rate of next to nothing, training's own figure is the loss of the adapter it started from."""
    engine = fresh(tiny_base, dropout=0.0)
    engine.switch(engine.initial_state(0))
    expected, _ = mean_loss(engine, features, examples, 8)
    loss, steps = train(engine, features, examples, epochs=2, batch_size=3, learning_rate=1e-12, seed=0)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert steps == 2 * 3


@pytest.mark.parametrize("count", [0, 1])
def test_few_examples(engine: Engine, features: Features, examples: list[Example], count: int) -> None:
    engine.switch(engine.initial_state(0))
    loss, steps = train(engine, features, examples[:count], epochs=3, batch_size=4, learning_rate=1e-2, seed=0)
    assert steps == 3 * count
    assert (loss > 0) == (count > 0)
    assert same(engine.read(), engine.initial_state(0)) == (count == 0)
