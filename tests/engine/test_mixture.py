"""The mixture of the model's distribution with the retrieved answers, against a plain loop and by its limits."""

import math

import pytest
import torch
from engine_samples import CASES, randomised
from hypothesis import given
from hypothesis import strategies as st

from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.generate import generate
from tasks.engine.likelihood import answer_probabilities
from tasks.engine.mixture import Memory, Mixing, Mixture, memories, mixing
from tasks.engine.prompt import Prompt, build_prompt
from tasks.engine.vision import Features

answers = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=5).map(tuple)


@given(answers, st.lists(st.integers(0, 3), max_size=3), st.floats(0.01, 2), st.integers(0, 2**16))
def test_following_is_the_conditional_of_whole_answers(
    known: tuple[tuple[int, ...], ...], written: list[int], heat: float, seed: int
) -> None:
    near = torch.rand(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
    shares = [math.exp((each - max(near, default=0)) / heat) for each in near]
    going_on = [
        (answer, share)
        for answer, share in zip(known, shares, strict=True)
        if answer[: len(written)] == tuple(written) and len(answer) > len(written)
    ]
    total = sum(share for _, share in going_on)
    expected = {
        token: sum(share for answer, share in going_on if answer[len(written)] == token) / total
        for token in {answer[len(written)] for answer, _ in going_on}
    }
    assert Memory(known, tuple(near)).following(written, heat) == pytest.approx(expected)


def test_mixed_rows_are_distributions_and_a_row_without_answers_is_the_models() -> None:
    probabilities = torch.rand(3, 6).softmax(-1)
    held = (Memory(((1, 5), (2, 5)), (0.9, 0.9)), Memory(), Memory(((4, 5),), (0.1,)))
    made = Mixing(Mixture(0.3, 0.1), held).mixed(probabilities, [[], [], [3]])
    assert made.sum(-1).tolist() == pytest.approx([1, 1, 1])
    expected = 0.7 * probabilities[0] + torch.tensor([0, 0.15, 0.15, 0, 0, 0])
    assert made[0].tolist() == pytest.approx(expected.tolist())
    assert torch.equal(made[1:], probabilities[1:])


@pytest.fixture
def prompts(engine: Engine) -> list[Prompt]:
    engine.switch(randomised(engine.read(), 1))
    near = (0.8, 0.35, 0.3)
    return [build_prompt(case, CASES[:count], near[:count]) for count, case in zip((1, 2, 3), CASES[5:], strict=False)]


def test_the_prompts_carry_their_cases_answers(engine: Engine, prompts: list[Prompt]) -> None:
    for prompt, memory in zip(prompts, memories(engine.base, prompts), strict=True):
        assert len(memory.answers) == len(prompt.retrieved)
        texts = [engine.base.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in memory.answers]
        assert texts == [answer for answer, _ in prompt.retrieved]


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.6])
def test_answers_are_those_of_a_plain_loop(
    engine: Engine, features: Features, prompts: list[Prompt], weight: float
) -> None:
    examples, mixture = encode(engine.base, features, prompts), Mixture(weight, 0.1)
    found = generate(
        engine, features, examples, tokens=8192, max_new_tokens=5, mixing=mixing(engine.base, prompts, mixture)
    )
    for example, memory, given_answer in zip(examples, memories(engine.base, prompts), found, strict=True):
        written: list[int] = []
        while len(written) < 5 and engine.base.tokenizer.eos_token_id not in written:
            following = {}
            for answer, near in zip(memory.answers, memory.similarities, strict=True):
                if list(answer[: len(written)]) == written and len(answer) > len(written):
                    token = answer[len(written)]
                    following[token] = following.get(token, 0.0) + math.exp(near / 0.1)
            whole = example.__class__((*example.prompt_ids, *written), (), example.image_ids)
            with torch.inference_mode():
                inputs = collate(engine.base, features, [whole]).inputs
                likely = engine.base.model(**inputs).logits[0, -1].softmax(-1)
            if following:
                likely = likely * (1 - weight)
                for token, share in following.items():
                    likely[token] += weight * share / sum(following.values())
            written.append(int(likely.argmax()))
        assert engine.base.tokenizer.decode(written, skip_special_tokens=True).strip() == given_answer.text


def test_nearly_all_weight_copies_the_nearest_case(engine: Engine, features: Features, prompts: list[Prompt]) -> None:
    sure = mixing(engine.base, prompts, Mixture(0.9999999, 1e-3))
    examples = encode(engine.base, features, prompts)
    found = generate(engine, features, examples, tokens=8192, max_new_tokens=12, mixing=sure)
    assert [each.text for each in found] == [max(each.retrieved, key=lambda one: one[1])[0] for each in prompts]


def test_an_answers_probabilities_are_those_of_plain_forward_passes(
    engine: Engine, features: Features, prompts: list[Prompt]
) -> None:
    examples = encode(engine.base, features, prompts)
    found = answer_probabilities(engine, features, examples, tokens=8192)
    for example, likely in zip(examples, found, strict=True):
        with torch.inference_mode():
            logits = engine.base.model(**collate(engine.base, features, [example]).inputs).logits[0]
        start = len(example.prompt_ids) - 1
        expected = [logits[start + n].softmax(-1)[token].item() for n, token in enumerate(example.answer_ids)]
        assert likely == pytest.approx(expected, rel=1e-4)
