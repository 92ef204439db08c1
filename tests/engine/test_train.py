"""Training: reproducible to the byte, on the adapter alone, and it learns."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from engine_samples import CASES, IMAGES, answer_texts, prompts_with_neighbours, randomised, same
from family_samples import every_family

from tasks.engine.adapter import State, adapter_files
from tasks.engine.base import Base, load_base
from tasks.engine.batch import Batch, Example, collate, encode
from tasks.engine.engine import Engine
from tasks.engine.fast.stacked import TrainingHospital, train_stacked
from tasks.engine.loss import answer_loss
from tasks.engine.prompt import build_prompt
from tasks.engine.train import mean_loss, train
from tasks.engine.vision import Features, encode_images
from tasks.federate.local import correction
from tasks.settings import LocalRule


@pytest.fixture
def examples(tiny_base: Base, features: Features) -> list[Example]:
    return encode(tiny_base, features, prompts_with_neighbours())


def fresh(base: Base, dropout: float) -> Engine:
    return Engine(base, r=4, alpha=8, dropout=dropout, targets=["q_proj", "v_proj"])


def trained(
    engine: Engine, features: Features, examples: list[Example], seed: int, start: int = 0, epochs: int = 2
) -> State:
    engine.switch(engine.initial_state(start))
    train(engine, features, examples, epochs=epochs, batch_size=3, tokens=8192, learning_rate=1e-2, seed=seed)
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


@every_family
def test_a_base_in_bfloat16_trains_on_a_cpu(
    tiny_folder: Path, tiny_base: Base, features: Features, examples: list[Example]
) -> None:
    """As in float32 but for rounding, which keeps 8 bits of a number; the adapter learns in float32."""
    narrow, losses = load_base(str(tiny_folder), device="cpu", precision="bfloat16"), {}
    for base, seen in ((tiny_base, features), (narrow, encode_images(narrow, IMAGES))):
        engine = fresh(base, dropout=0.0)
        learned = trained(engine, seen, examples, seed=5)
        assert {tensor.dtype for tensor in learned.values()} == {torch.float32}
        losses[base.model.dtype] = mean_loss(engine, seen, examples, 8192)[0]
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.05)


@every_family
def test_a_step_of_whole_images_is_the_step_of_single_cases(
    tiny_base: Base, features: Features, examples: list[Example]
) -> None:
    """One step over all examples, also where it is parted by tokens: the adapter is the same but for rounding."""
    engine, found = fresh(tiny_base, dropout=0.0), {}
    for by_image, tokens in ((False, 8192), (True, 8192), (True, 300)):
        engine.switch(randomised(engine.initial_state(0), 2))
        how = {"batch_size": 2 * len(examples), "tokens": tokens, "learning_rate": 1e-3, "by_image": by_image}
        loss, taken = train(engine, features, 2 * examples, epochs=1, seed=5, **how)
        assert taken == 1
        found[by_image, tokens] = loss, engine.read()
    loss, state = found.pop((False, 8192))
    for other, learned in found.values():
        assert other == pytest.approx(loss, rel=1e-5)
        for name, tensor in state.items():
            torch.testing.assert_close(learned[name], tensor, rtol=1e-4, atol=2e-4)


def test_another_seed_gives_another_order(tiny_base: Base, features: Features, examples: list[Example]) -> None:
    engine = fresh(tiny_base, dropout=0.0)
    assert not same(trained(engine, features, examples, seed=5), trained(engine, features, examples, seed=6))


@pytest.mark.parametrize("mu", [0, 40.0])
def test_steps_are_adamw_with_a_clipped_norm(
    tiny_base: Base, features: Features, examples: list[Example], mu: float
) -> None:
    """Against the method written out (Loshchilov and Hutter, arXiv 1711.05101, without decay), in float64.

    FedProx adds its own gradient before the norm is clipped.
    """
    engine, one, rate = fresh(tiny_base, dropout=0.0), examples[:1], 1e-2
    state = randomised(engine.read(), 1)
    engine.switch(state)
    values = {parameter: parameter.detach().double() for parameter in engine.parameters()}
    began = dict(values)
    first, second = ({parameter: torch.zeros_like(value) for parameter, value in values.items()} for _ in range(2))
    for step in range(1, 4):
        loss = answer_loss(engine.base, collate(engine.base, features, one))
        gradients = [gradient.double() for gradient in torch.autograd.grad(loss, list(values))]
        pulled = [mu * (parameter.detach().double() - began[parameter]) for parameter in values]
        gradients = [gradient + pull for gradient, pull in zip(gradients, pulled, strict=True)]
        norm = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
        assert norm > 1
        for (parameter, value), gradient in zip(values.items(), gradients, strict=True):
            first[parameter] += 0.1 * (gradient / norm - first[parameter])
            second[parameter] += 0.001 * ((gradient / norm) ** 2 - second[parameter])
            scale = (second[parameter] / (1 - 0.999**step)).sqrt() + 1e-8
            values[parameter] = value - rate * first[parameter] / (1 - 0.9**step) / scale
            parameter.data.copy_(values[parameter])
    expected = engine.read()
    engine.switch(state)
    correct = correction(LocalRule(proximal_mu=mu), state)
    train(engine, features, one, epochs=3, batch_size=1, tokens=8192, learning_rate=rate, seed=0, correct=correct)
    torch.testing.assert_close(engine.read(), expected, rtol=0, atol=1e-5)


@every_family
def test_a_step_in_parts_is_the_whole_step(tiny_base: Base, features: Features, examples: list[Example]) -> None:
    """Answers of unlike length, in parts of unlike size: the token budget is about memory alone."""
    engine = fresh(tiny_base, dropout=0.0)
    longest = max(map(len, examples))
    assert len({len(example.answer_ids) for example in examples}) > 3
    found = []
    for tokens in (8192, 2 * longest, 1):
        engine.switch(randomised(engine.read(), 1))
        loss = train(engine, features, examples, epochs=2, batch_size=5, tokens=tokens, learning_rate=1e-3, seed=5)
        found.append((loss, engine.read()))
    (reported, whole), *parts = found
    for (loss, steps), state in parts:
        assert steps == reported[1] == 2 * 2
        assert loss == pytest.approx(reported[0], rel=1e-5)
        torch.testing.assert_close(state, whole, rtol=0, atol=1e-5)


def bytes_kept(base: Base, batch: Batch) -> int:
    """What a forward pass keeps for its gradients."""
    sizes: list[int] = []

    def note(kept: torch.Tensor) -> torch.Tensor:
        sizes.append(kept.nbytes)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        answer_loss(base, batch)
    return sum(sizes)


@every_family
def test_checkpointing_changes_memory_alone(tiny_folder: Path, features: Features) -> None:
    """Dropout's draws are repeated where a layer is computed again."""
    found, kept, answers = [], [], []
    for checkpointing in (False, True):
        base = load_base(str(tiny_folder), device="cpu", gradient_checkpointing=checkpointing)
        engine, examples = fresh(base, dropout=0.3), encode(base, features, prompts_with_neighbours())
        found.append(trained(engine, features, examples, seed=5))
        answers.append(answer_texts(engine, features, examples, tokens=8192, max_new_tokens=8))
        engine.peft.train()
        kept.append(bytes_kept(base, collate(base, features, examples)))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
    assert answers[1] == answers[0]
    assert kept[1] < 0.8 * kept[0]  # of two layers, one is kept whole


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
    answer_loss(engine.base, collate(engine.base, features, examples)).backward()
    graded = {name for name, parameter in engine.peft.named_parameters() if parameter.grad is not None}
    assert len(graded) == len(engine.read())
    assert all("lora_" in name for name in graded)
    assert {id(parameter) for parameter in engine.parameters()} == {
        id(parameter) for parameter in engine.peft.parameters() if parameter.grad is not None
    }


def test_the_engine_is_left_for_inference(engine: Engine, features: Features, examples: list[Example]) -> None:
    trained(engine, features, examples, seed=5)
    assert not any(module.training for module in engine.peft.modules())
    assert mean_loss(engine, features, examples, 300) == mean_loss(engine, features, examples, 300)


def test_so_it_is_where_training_was_broken_off(engine: Engine, features: Features, examples: list[Example]) -> None:
    def interrupt(_: torch.Tensor) -> None:
        raise KeyboardInterrupt

    engine.parameters()[0].register_post_accumulate_grad_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(engine, features, examples, seed=5)
    assert not any(module.training for module in engine.peft.modules())
    assert all(parameter.grad is None for parameter in engine.peft.parameters())


@pytest.mark.slow
@every_family
def test_it_learns_eight_examples_by_heart(tiny_base: Base, features: Features) -> None:
    """Its answers end where they were taught to, each at its own length."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    engine = Engine(tiny_base, r=16, alpha=32, dropout=0.0, targets=targets)
    examples = encode(engine.base, features, [build_prompt(case, []) for case in CASES])
    engine.switch(engine.initial_state(0))
    before, tokens = mean_loss(engine, features, examples, 8192)
    assert tokens == sum(len(example.answer_ids) for example in examples)
    loss, steps = train(engine, features, examples, epochs=60, batch_size=8, tokens=8192, learning_rate=3e-3, seed=0)
    after, _ = mean_loss(engine, features, examples, 8192)
    assert steps == 60
    assert after < loss < before
    assert after < before * 0.6  # the tiny model's logits are bounded, and so its loss from below
    assert answer_texts(engine, features, examples, tokens=8192, max_new_tokens=24) == [case.answer for case in CASES]


def test_the_reported_loss_is_the_mean_over_answer_tokens(
    tiny_base: Base, features: Features, examples: list[Example]
) -> None:
    """At a learning rate of next to nothing, training's own figure is the loss of the adapter it started from."""
    engine = fresh(tiny_base, dropout=0.0)
    engine.switch(engine.initial_state(0))
    expected, _ = mean_loss(engine, features, examples, 8192)
    loss, steps = train(engine, features, examples, epochs=2, batch_size=3, tokens=8192, learning_rate=1e-12, seed=0)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert steps == 2 * 3


@pytest.mark.parametrize("count", [0, 1])
def test_few_examples(engine: Engine, features: Features, examples: list[Example], count: int) -> None:
    engine.switch(engine.initial_state(0))
    loss, steps = train(
        engine, features, examples[:count], epochs=3, batch_size=4, tokens=8192, learning_rate=1e-2, seed=0
    )
    assert steps == 3 * count
    assert (loss > 0) == (count > 0)
    assert same(engine.read(), engine.initial_state(0)) == (count == 0)


def test_every_step_of_every_hospital_is_corrected(
    tiny_base: Base, features: Features, examples: list[Example]
) -> None:
    """Once a step, all of the adapter by name; what is left of a gradient is what trains."""
    engine = fresh(tiny_base, dropout=0.0)
    start, seen = randomised(engine.read(), 1), list[set[str]]()

    def remove(parameters: Mapping[str, torch.nn.Parameter]) -> None:
        seen.append(set(parameters))
        for parameter in parameters.values():
            assert parameter.grad is not None
            parameter.grad.zero_()

    engine.switch(start)
    common = {"epochs": 2, "batch_size": 3, "tokens": 8192, "learning_rate": 1e-2, "correct": remove}
    _, steps = train(engine, features, examples, **common, seed=0)  # type: ignore[arg-type]
    assert same(engine.read(), start)
    assert seen == [set(start)] * steps
    (alone,) = train_stacked(engine, [TrainingHospital(features, examples, 0)], **common)  # type: ignore[arg-type]
    assert same(alone.state, start)
    assert seen == [set(start)] * 2 * steps
