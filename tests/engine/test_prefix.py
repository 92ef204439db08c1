"""What prompts begin with alike is computed once, and gives the answers and the logits of whole prompts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_samples import CASES, case, prompts_with_neighbours, randomised
from family_samples import every_family

from tasks.engine.base import Base, load_base
from tasks.engine.batch import Batch, Example, collate, encode, within
from tasks.engine.engine import Engine
from tasks.engine.fast import prefill, prefix
from tasks.engine.fast.beginnings import Beginnings
from tasks.engine.fast.prefill import read_prompts
from tasks.engine.fast.prefix import Split, by_image, split
from tasks.engine.generate import generate
from tasks.engine.prompt import Prompt, build_prompt, build_prompt_without_image
from tasks.engine.vision import Features

WORDS = ("Is there a mass?", "Where is it?", "What imaging modality is this, and what is wrong with it?", "What?")


def about(image_id: str, words: Sequence[str] = WORDS, retrieved: int = 0) -> list[Prompt]:
    """Several questions about one image, each with the same cases before it."""
    return [build_prompt(case(n, image_id, text, "yes"), CASES[:retrieved]) for n, text in enumerate(words)]


MIXTURES: dict[str, Callable[[], list[Prompt]]] = {
    "one image": lambda: about("image-2"),
    "one image, the same cases shown": lambda: about("image-2", retrieved=2),
    "several images of several sizes": lambda: [*about("image-2"), *about("image-4"), *about("image-0", WORDS[:1])],
    "other cases for each": lambda: prompts_with_neighbours()[:4],
    "the same prompt twice": lambda: [*about("image-1", WORDS[:1]), *about("image-1", WORDS[:1])],
    "an image's copy under another name": lambda: [*about("image-0"), *about("image-3")],
    "no image": lambda: [build_prompt_without_image(each) for each in CASES],
}


@every_family
@pytest.mark.parametrize("name", MIXTURES)
@torch.inference_mode()
def test_answers_and_logits_are_those_of_whole_prompts(
    engine: Engine, features: Features, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = engine.base
    engine.switch(randomised(engine.read(), 1))
    examples = encode(base, features, MIXTURES[name]())
    expected = generate(engine, features, examples, tokens=1, max_new_tokens=6)
    monkeypatch.setattr(prefix, "WORTH", 0.0)
    parts = split(base, features, examples)
    assert (parts is not None) == base.family.causal
    if parts:
        assert rejoined(parts) == [(example.prompt_ids, example.image_ids) for example in examples]
    found = generate(engine, features, examples, tokens=8192, max_new_tokens=6)
    assert [each.text for each in found] == [each.text for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
    read = read_prompts(base, features, examples)
    for row, example in zip(read.logits, examples, strict=True):
        alone = base.model(**collate(base, features, [replace(example, answer_ids=())]).inputs).logits[0, -1]
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)
    assert read.logits.std() > 0.01


@every_family
@pytest.mark.parametrize("name", MIXTURES)
def test_kept_beginnings_give_the_same_answers_and_are_not_computed_again(
    engine: Engine, features: Features, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kept = engine.base, Beginnings(10**9)
    engine.switch(randomised(engine.read(), 1))
    examples = encode(base, features, MIXTURES[name]())
    others = encode(base, features, [*about("image-1"), *prompts_with_neighbours()[3:6]])
    plain = [generate(engine, features, [each], tokens=8192, max_new_tokens=6)[0] for each in (*examples, *others)]
    tokens: list[int] = []

    def counting(base: Base, features: Features, examples: Sequence[Example]) -> Batch:
        tokens.append(sum(len(each.prompt_ids) for each in examples))
        return collate(base, features, examples)

    monkeypatch.setattr(prefill, "collate", counting)
    work = []
    for _ in range(2):
        found = generate(engine, features, examples, tokens=8192, max_new_tokens=6, beginnings=kept)
        found += generate(engine, features, [*others], tokens=8192, max_new_tokens=6, beginnings=kept)
        assert [each.text for each in found] == [each.text for each in plain]
        for one, other in zip(found, plain, strict=True):
            assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        work.append(sum(tokens))
        tokens.clear()
    window = getattr(base.config.get_text_config(), "sliding_window", None)  # such a cache drops what it passed
    if base.family.causal and window is None and name != "no image":
        assert work[1] < work[0] / 2


def test_what_is_kept_of_beginnings_is_bounded(engine: Engine, features: Features) -> None:
    base = engine.base
    (example,) = encode(base, features, about("image-2", WORDS[:1]))
    kept = Beginnings(100)  # bytes: less than one beginning
    expected = generate(engine, features, [example], tokens=8192, max_new_tokens=3)
    found = generate(engine, features, [example], tokens=8192, max_new_tokens=3, beginnings=kept)
    assert [each.text for each in found] == [each.text for each in expected]
    assert kept.nbytes == 0


def rejoined(parts: Split) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """Tokens and images of the rows, each part behind its beginning."""
    pairs = [(parts.beginnings[whose], rest) for whose, rest in zip(parts.whose, parts.rests, strict=True)]
    return [(one.prompt_ids + rest.prompt_ids, one.image_ids + rest.image_ids) for one, rest in pairs]


def test_an_image_is_computed_once_and_never_cut(tiny_base: Base, features: Features) -> None:
    examples = encode(tiny_base, features, 4 * MIXTURES["several images of several sizes"]())
    parts = split(tiny_base, features, examples)
    assert parts is not None
    assert sorted(each.image_ids for each in parts.beginnings) == [("image-0",), ("image-2",), ("image-4",)]
    assert all(tiny_base.image_token_id not in rest.prompt_ids for rest in parts.rests)
    # Placeholders are the same for images of one size: what stands for two images begins alike before them only.
    one, other = (encode(tiny_base, features, about(name, WORDS[:1]))[0] for name in ("image-0", "image-3"))
    assert one.prompt_ids == other.prompt_ids
    parts = split(tiny_base, features, [one, other] * 60)
    assert parts is not None
    assert len(parts.beginnings) == 2


def test_too_little_is_not_shared(tiny_base: Base, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = encode(tiny_base, features, about("image-2"))
    assert split(tiny_base, features, examples[:1]) is None
    parts = split(tiny_base, features, examples * 9)
    assert parts is not None
    share = parts.tokens / (36 * max(len(example.prompt_ids) for example in examples))
    for worth, shared in ((1 - share - 0.01, True), (1 - share + 0.01, False)):
        monkeypatch.setattr(prefix, "WORTH", worth)
        assert (split(tiny_base, features, examples * 9) is not None) == shared


@pytest.mark.parametrize("twin", ["llava-med"], indirect=True)
def test_rows_stand_alone_in_a_window_shorter_than_they_are(tiny_folder: Path, features: Features) -> None:
    """Padding would push a row's beginning out of a sliding window."""
    base = load_base(str(tiny_folder), device="cpu")
    base.config.text_config.sliding_window = 40
    engine = Engine(base, r=4, alpha=8, dropout=0.0, targets=["q_proj"])
    examples = encode(base, features, prompts_with_neighbours())
    assert max(len(example.prompt_ids) for example in examples) > 60
    together = generate(engine, features, examples, tokens=8192, max_new_tokens=6)
    assert together == [
        each for example in examples for each in generate(engine, features, [example], tokens=1, max_new_tokens=6)
    ]


def test_questions_about_one_image_share_a_batch(tiny_base: Base, features: Features) -> None:
    images = ["image-2", "image-0", "image-4"] * 4
    prompts = [about(image_id, [f"{'very ' * n}odd?"])[0] for n, image_id in enumerate(images)]
    examples = encode(tiny_base, features, prompts)
    order = by_image(tiny_base, examples)
    assert order is not None
    assert sorted(order) == list(range(12))
    assert [images[place] for place in order] == ["image-2"] * 4 + ["image-0"] * 4 + ["image-4"] * 4
    lengths = [len(example) for example in examples]
    assert within(lengths, 4 * max(lengths), order)[0] == order[:4]
    assert by_image(tiny_base, encode(tiny_base, features, prompts_with_neighbours())) is None
    assert by_image(tiny_base, []) == []
