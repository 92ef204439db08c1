"""All hospitals of a round in one pass: the results of training them one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from engine_samples import prompts_with_neighbours, randomised, same
from family_samples import every_family

from tasks.engine.base import Base, load_base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.fast.stacked import Stack, Trained, TrainingHospital, train_stacked
from tasks.engine.train import train
from tasks.engine.vision import Features

TARGETS = ["q_proj", "v_proj"]
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
COMMON = {"epochs": 2, "batch_size": 3, "learning_rate": 1e-3}


def hospitals(base: Base, features: Features) -> list[TrainingHospital]:
    """Of 8, 2, 5 and 0 examples: they run out of batches at different steps."""
    examples = encode(base, features, prompts_with_neighbours())
    return [
        TrainingHospital(features, part, seed)
        for seed, part in enumerate([examples, examples[3:5], examples[:5], examples[:0]])
    ]


class Gradients:
    """The gradients of each step, which are then moved away from zero: Adam makes whole steps of rounding there."""

    AWAY = 10.0
    """More than any gradient here."""

    def __init__(self) -> None:
        self.steps: list[list[torch.Tensor]] = []
        """Of each tensor, in the order of the adapter's."""

    def __call__(self, weights: Mapping[str, torch.nn.Parameter]) -> None:
        found = [weight.grad for weight in weights.values() if weight.grad is not None]
        assert len(found) == len(weights) and all(float(each.abs().max()) < self.AWAY for each in found)
        self.steps.append([each.clone() for each in found])
        for each in found:
            each += self.AWAY


def one_by_one(engine: Engine, parts: list[TrainingHospital], seen: Sequence[Gradients] = ()) -> list[Trained]:
    """Each trained alone; `seen` gets the gradients of each."""
    start, found = engine.read(), []
    for number, part in enumerate(parts):
        engine.switch(start)
        given: dict[str, Any] = COMMON | {"tokens": 8192, "seed": part.seed}
        loss, steps = train(engine, part.features, part.examples, **given, correct=seen[number] if seen else None)
        found.append(Trained(engine.read(), loss, steps))
    engine.switch(start)
    return found


def assert_like(found: list[Trained], expected: list[Trained]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.state, other.state, rtol=0, atol=1e-5)
        assert one.steps == other.steps
        assert one.loss == pytest.approx(other.loss, abs=1e-5)


@every_family
@pytest.mark.parametrize("targets", [TARGETS, EVERY], ids=["q-v", "every"])
def test_it_is_training_one_by_one(tiny_base: Base, features: Features, targets: list[str]) -> None:
    engine = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=targets)
    engine.switch(randomised(engine.read(), 1, scale=0.1))
    start, parts = engine.read(), hospitals(tiny_base, features)
    seen = [Gradients() for _ in parts]
    expected = one_by_one(engine, parts, seen)
    assert [each.steps for each in expected] == [6, 2, 4, 0]
    for tokens in (8192, 700):  # all at once, and in parts that hold rows of several hospitals
        gradients = Gradients()
        given: dict[str, Any] = COMMON | {"tokens": tokens, "correct": gradients}
        found = train_stacked(engine, parts, **given)
        assert_like(found, expected)
        for number, each in enumerate(seen):
            for step, alone in enumerate(each.steps):
                for one, other in zip(gradients.steps[step], alone, strict=True):
                    torch.testing.assert_close(one[number], other, rtol=1e-4, atol=1e-5)
        assert same(found[3].state, start)
        assert not same(found[0].state, start)
    # It leaves the engine as it was.
    assert same(engine.read(), start)
    assert not any(module.training for module in engine.peft.modules())
    assert len(engine.parameters()) == len(start)
    assert_like(one_by_one(engine, parts, [Gradients() for _ in parts]), expected)


def test_layers_computed_again_see_the_same_adapters(tiny_folder: object, features: Features) -> None:
    found = []
    for checkpointing in (False, True):
        base = load_base(str(tiny_folder), device="cpu", gradient_checkpointing=checkpointing)
        engine = Engine(base, r=4, alpha=8, dropout=0.1, targets=EVERY)
        engine.switch(randomised(engine.read(), 1, scale=0.1))
        found.append(train_stacked(engine, hospitals(base, features), **COMMON, tokens=8192))
    assert_like(found[1], found[0])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_leaves_out_that_share_and_keeps_the_mean(tiny_base: Base, dropout: float) -> None:
    """A layer's change is linear in what LoRA sees of its input: each draw leaves some out, their mean is the whole."""
    engine = Engine(tiny_base, r=4, alpha=8, dropout=dropout, targets=["q_proj"])
    stack = Stack(engine, 1)
    name = next(name for name in stack.weights if "lora_A" in name)
    a, b = stack.weights[name], stack.weights[name.replace("lora_A", "lora_B")]
    torch.nn.init.constant_(a, 1.0)
    torch.nn.init.constant_(b, 1.0)
    layer = dict(engine.peft.named_modules())[name.removesuffix(".lora_A.weight")]
    x = torch.ones(1, 500, a.shape[-1])
    whole = 2 * 4 * a.shape[-1]  # the scale of 8 / 4, four rows of A, an input of ones
    torch.manual_seed(0)
    with torch.no_grad():
        plain = layer.base_layer(x)
        with stack.switched_on(torch.tensor([0]), torch.tensor([0])):
            change = (layer(x) - plain)[0, :, 0]
    seen = change * (1 - dropout) / whole  # the share of the input that LoRA saw
    variance = dropout * (1 - dropout) / a.shape[-1]
    assert float(seen.mean()) == pytest.approx(1 - dropout, abs=5 * (variance / 500) ** 0.5 + 1e-5)
    assert float(seen.var()) == pytest.approx(variance, rel=0.4, abs=1e-9)


def test_the_same_seeds_give_the_same_bytes(engine: Engine, features: Features) -> None:
    parts = hospitals(engine.base, features)
    found = []
    for before in (1, 2):
        torch.manual_seed(before)
        found.append(train_stacked(engine, parts, **COMMON, tokens=8192))
    assert all(same(one.state, other.state) for one, other in zip(*found, strict=True))


def test_a_hospital_that_diverges_spoils_no_other(tiny_base: Base, features: Features) -> None:
    engine = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=TARGETS)
    parts = hospitals(tiny_base, features)
    spoilt = Features(features.rows * float("nan"), features.starts, features.grids, features.merge)
    expected = one_by_one(engine, parts[:3])
    found = train_stacked(engine, [*parts[:3], TrainingHospital(spoilt, parts[0].examples, 9)], **COMMON, tokens=8192)
    assert not any(tensor.isfinite().all() for name, tensor in found[3].state.items())
    assert_like(found[:3], expected)
