"""The loss on answers alone is the model's own loss, and the one worked out case by case from pixels."""

import pytest
import torch
from engine_samples import CASES, prompts_with_neighbours, randomised
from family_samples import Twin, every_family

from tasks.engine.base import Base
from tasks.engine.batch import IGNORED, Batch, collate, encode
from tasks.engine.engine import Engine
from tasks.engine.loss import answer_logits, answer_loss
from tasks.engine.prompt import Prompt, build_prompt
from tasks.engine.train import mean_loss
from tasks.engine.vision import Features


def with_context(k: int) -> list[Prompt]:
    return [build_prompt(case, [CASES[(n + 1 + i) % len(CASES)] for i in range(k)]) for n, case in enumerate(CASES)]


def batch_of(base: Base, features: Features, prompts: list[Prompt]) -> Batch:
    batch = collate(base, features, encode(base, features, prompts))
    assert (batch.inputs["attention_mask"] == 0).any()
    return batch


@every_family
@pytest.mark.parametrize("k", [0, 1, 2, 3])
@torch.inference_mode()
def test_it_is_the_models_own_loss(engine: Engine, features: Features, k: int) -> None:
    engine.switch(randomised(engine.read(), 1))
    batch = batch_of(engine.base, features, with_context(k))
    whole = engine.base.model(**batch.inputs, labels=batch.labels).loss
    assert float(answer_loss(engine.base, batch)) == pytest.approx(float(whole), abs=1e-5)


@every_family
def test_its_gradients_are_those_of_the_models_own_loss(tiny_base: Base, features: Features) -> None:
    """On every projection, the last layer's too, where the loss leaves out whatever no answer needs."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    engine = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=targets)
    engine.switch(randomised(engine.read(), 1, scale=0.1))
    batch = batch_of(engine.base, features, prompts_with_neighbours())
    found = torch.autograd.grad(answer_loss(engine.base, batch), engine.parameters())
    expected = torch.autograd.grad(
        engine.base.model(**batch.inputs, labels=batch.labels).loss, engine.parameters(), materialize_grads=True
    )
    assert all(gradient.any() for gradient in expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@every_family
@torch.inference_mode()
def test_each_logit_comes_from_the_token_before(engine: Engine, features: Features) -> None:
    batch = batch_of(engine.base, features, prompts_with_neighbours())
    full = engine.base.model(**batch.inputs).logits
    found, targets = answer_logits(engine.base, batch)
    rows, columns = (batch.labels != IGNORED).nonzero(as_tuple=True)
    torch.testing.assert_close(found, full[rows, columns - 1], rtol=0, atol=1e-5)
    assert torch.equal(targets, batch.inputs["input_ids"][rows, columns])


@torch.inference_mode()
def loss_from_pixels(twin: Twin, base: Base, prompt: Prompt) -> tuple[float, int]:
    """Summed loss of one answer and its number of tokens: one row, no padding, no cached features."""
    by_id = {case.id: case for case in CASES}
    retrieved = [by_id[case_id] for case_id in reversed(prompt.retrieved_ids)]
    question = prompt.messages[-1]["content"][1]["text"]
    turns = [*((case.question, case.answer) for case in retrieved), (question, None)]
    answer = base.tokenizer(f"{prompt.answer}{twin.end}", add_special_tokens=False)["input_ids"]
    inputs = twin.row(base, turns, prompt.image_ids, prompt.answer)
    assert inputs["input_ids"][0, -len(answer) :].tolist() == answer
    chances = base.model(**inputs).logits[0].log_softmax(-1)
    places = range(inputs["input_ids"].shape[1] - len(answer) - 1, inputs["input_ids"].shape[1] - 1)
    return -sum(float(chances[at, token]) for at, token in zip(places, answer, strict=True)), len(answer)


@every_family
def test_it_is_the_mean_over_answer_tokens_from_pixels(twin: Twin, engine: Engine, features: Features) -> None:
    engine.switch(randomised(engine.read(), 1))
    prompts = prompts_with_neighbours()
    sums, counts = zip(*(loss_from_pixels(twin, engine.base, prompt) for prompt in prompts), strict=True)
    expected = sum(sums) / sum(counts)
    with torch.inference_mode():
        assert float(answer_loss(engine.base, batch_of(engine.base, features, prompts))) == pytest.approx(
            expected, abs=1e-5
        )
    # Batches of unlike size and unlike answers: the mean is over tokens, not over batches.
    examples = encode(engine.base, features, prompts)
    for most in (1, 500, 8192):
        loss, tokens = mean_loss(engine, features, examples, most)
        assert loss == pytest.approx(expected, abs=1e-5)
        assert tokens == sum(counts)


def test_no_examples_have_no_loss(engine: Engine, features: Features) -> None:
    assert mean_loss(engine, features, [], 8192) == (0.0, 0)
