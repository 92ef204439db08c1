"""Batched answers are those given one by one, and those of a plain loop without any cache."""

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from engine_samples import CASES, answer_texts, prompts_with_neighbours, randomised
from family_samples import Turns, Twin, every_family

from tasks.engine.base import Base, load_base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.generate import Answer, Heard, Watch, generate
from tasks.engine.prompt import build_prompt, build_prompt_without_image
from tasks.engine.vision import Features

LENGTH = 12


def plain_loop(twin: Twin, base: Base, turns: Turns, image_ids: list[str]) -> Answer:
    """Greedy decoding from pixels, the whole sequence run anew for each token."""
    inputs = twin.row(base, turns, image_ids, None)
    prompt_length = inputs["input_ids"].shape[1]
    end = base.tokenizer.convert_tokens_to_ids(twin.end)
    likely = []
    with torch.inference_mode():
        for _ in range(LENGTH):
            logits = base.model(**inputs).logits[:, -1]
            best = logits.argmax(-1, keepdim=True)
            likely.append(logits.softmax(-1)[0, best.item()].item())
            if best.item() == end:
                break
            inputs["input_ids"] = torch.cat([inputs["input_ids"], best], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            for name, value in twin.grown.items():
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, 1), value=value)
    text = str(base.tokenizer.decode(inputs["input_ids"][0, prompt_length:], skip_special_tokens=True)).strip()
    return Answer(text, sum(likely) / len(likely))


def answers(engine: Engine, features: Features, tokens: int) -> list[str]:
    examples = encode(engine.base, features, prompts_with_neighbours())
    assert len({len(example.prompt_ids) for example in examples}) > 3
    return answer_texts(engine, features, examples, tokens=tokens, max_new_tokens=LENGTH)


@every_family
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_batch_answers_as_one_by_one(engine: Engine, features: Features, seed: int | None) -> None:
    if seed is not None:
        engine.switch(randomised(engine.read(), seed))
    alone = answers(engine, features, tokens=1)
    assert len(set(alone)) > len(alone) // 2
    for tokens in (500, 8192):
        assert answers(engine, features, tokens) == alone


@every_family
@pytest.mark.parametrize("seed", [None, 1])
def test_answers_are_those_of_a_plain_loop(twin: Twin, engine: Engine, features: Features, seed: int | None) -> None:
    if seed is not None:
        engine.switch(randomised(engine.read(), seed))
    examples = encode(engine.base, features, prompts_with_neighbours())
    found = generate(engine, features, examples, tokens=8192, max_new_tokens=LENGTH)
    for number in (0, 3, 5):
        retrieved = [CASES[(number + 1 + i) % len(CASES)] for i in reversed(range(number % 4))]
        turns = [*((case.question, case.answer) for case in retrieved), (CASES[number].question, None)]
        images = [case.image_id for case in [*retrieved, CASES[number]]]
        expected = plain_loop(twin, engine.base, turns, images)
        assert found[number].text == expected.text
        assert found[number].confidence == pytest.approx(expected.confidence, abs=1e-4)


@every_family
def test_confidence_is_that_of_one_by_one(engine: Engine, features: Features) -> None:
    engine.switch(randomised(engine.read(), 1))
    examples = encode(engine.base, features, prompts_with_neighbours())
    alone, together = (
        [each.confidence for each in generate(engine, features, examples, tokens=most, max_new_tokens=LENGTH)]
        for most in (1, 8192)
    )
    assert together == pytest.approx(alone, abs=1e-4)
    assert all(0 < each <= 1 for each in alone)
    assert len(set(alone)) > len(alone) // 2


def test_an_empty_answer_is_sure_of_its_end(engine: Engine, features: Features) -> None:
    """Logits of a bias alone: every answer ends at once, with a probability known beforehand."""
    end, words = engine.base.tokenizer.eos_token_id, engine.base.model.lm_head.out_features
    bias = torch.nn.functional.one_hot(torch.tensor(end), words) * 7.0
    examples = encode(engine.base, features, prompts_with_neighbours())
    with engine.base.model.lm_head.register_forward_hook(lambda *given: torch.zeros_like(given[-1]) + bias):
        found = generate(engine, features, examples, tokens=8192, max_new_tokens=LENGTH)
    likely = torch.softmax(bias, 0)[end].item()
    assert {each.text for each in found} == {""}
    assert [each.confidence for each in found] == pytest.approx([likely] * len(examples), rel=1e-5)  # in float32


def test_hospitals_answer_differently(engine: Engine, features: Features) -> None:
    found = []
    for seed in (1, 2, 1):
        engine.switch(randomised(engine.read(), seed))
        found.append(answers(engine, features, 8192))
    assert found[0] == found[2] != found[1]


def test_length_is_bounded(engine: Engine, features: Features) -> None:
    examples = encode(engine.base, features, [build_prompt(CASES[0], [])])
    for length in (1, 5):
        (found,) = answer_texts(engine, features, examples, tokens=8192, max_new_tokens=length)
        assert len(engine.base.tokenizer(found)["input_ids"]) <= 4 * length  # bytes of a broken character are written �
        (longer,) = answer_texts(engine, features, examples, tokens=8192, max_new_tokens=length + 1)
        assert longer.startswith(found.rstrip("�"))
    assert answer_texts(engine, features, [], tokens=8192, max_new_tokens=4) == []


def test_a_folders_sampling_habits_are_left_aside(
    engine: Engine, features: Features, tiny_folder: Path, tmp_path: Path
) -> None:
    """Qwen2.5-VL is published with a repetition penalty, Qwen2-VL with a temperature."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    habits = {"do_sample": True, "temperature": 0.1, "top_p": 0.001, "repetition_penalty": 5.0, "min_new_tokens": 9}
    (folder / "generation_config.json").write_text(json.dumps(habits | {"bad_words_ids": [[300]]}))
    other = Engine(load_base(str(folder), device="cpu"), r=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])
    assert answers(other, features, 8192) == answers(engine, features, 8192)


@every_family
def test_without_an_image_the_answers_are_those_of_one_by_one(engine: Engine, features: Features) -> None:
    prompts = [build_prompt_without_image(case) for case in CASES]
    examples = encode(engine.base, features, prompts)
    assert all(engine.base.image_token_id not in example.prompt_ids for example in examples)
    engine.switch(randomised(engine.read(), 1))
    alone = [answer_texts(engine, features, [each], tokens=1, max_new_tokens=6)[0] for each in examples]
    assert answer_texts(engine, features, examples, tokens=8192, max_new_tokens=6) == alone
    assert len(set(alone)) > 1


def test_answers_are_followed_word_by_word_and_end_when_nobody_waits(engine: Engine, features: Features) -> None:
    examples = encode(engine.base, features, prompts_with_neighbours())
    engine.switch(randomised(engine.read(), 1))
    plain = generate(engine, features, examples, tokens=8192, max_new_tokens=LENGTH)
    long = [place for place, each in enumerate(plain) if len(each.text) > 8][:2]
    followed, dropped = long
    heard: list[Heard] = []

    def hear(found: Mapping[int, Heard]) -> list[int]:
        assert set(found) <= {followed}
        heard.extend(found.values())
        return [dropped]

    watch = Watch(frozenset({followed}), hear)
    found = generate(engine, features, examples, tokens=8192, max_new_tokens=LENGTH, watch=watch)
    assert [each for place, each in enumerate(found) if place != dropped] == [
        each for place, each in enumerate(plain) if place != dropped
    ]
    assert len(found[dropped].text) < len(plain[dropped].text)
    assert len(heard) > 3
    for one, other in itertools.pairwise(heard):
        assert other.text.startswith(one.text.rstrip("\ufffd")) and one.total < other.total
    assert heard[-1].text == plain[followed].text
    assert heard[-1].total / LENGTH <= plain[followed].confidence


def test_generation_stops_when_nobody_waits_for_any_answer(engine: Engine, features: Features) -> None:
    examples = encode(engine.base, features, prompts_with_neighbours())
    engine.switch(randomised(engine.read(), 1))
    steps = 0

    def hear(_: Mapping[int, Heard]) -> range:
        nonlocal steps
        steps += 1
        return range(len(examples))

    generate(engine, features, examples, tokens=8192, max_new_tokens=LENGTH, watch=Watch(frozenset(), hear))
    assert steps == 1
