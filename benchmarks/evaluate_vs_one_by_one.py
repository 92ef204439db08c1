"""Answering against `generate`, one question at a time, from pixels.

    python -m benchmarks.evaluate_vs_one_by_one

The common way decodes, preprocesses and tokenises the question with its retrieved images and calls transformers'
greedy `generate`, its cache of keys and values on, for each question. The engine has the features at hand, which
retrieval needed before; the notes say what is left of the ratio where it computes them as well. Prompts are tokenised
in both. Both must give the same answers.

The notes also tell what is gained by computing once what prompts of a batch begin with alike: with retrieved cases,
without them, and without them where an image has 144 tokens instead of 9.
"""

import statistics
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from peft import set_peft_model_state_dict

from benchmarks.figure import Figure
from benchmarks.limit import limit
from benchmarks.workload import EVALUATION, Work, draw_work, drawn_state, from_pixels, in_turn, rate, spread
from tasks.engine.base import Base
from tasks.engine.batch import Example, encode
from tasks.engine.engine import Engine
from tasks.engine.fast import prefix
from tasks.engine.generate import generate
from tasks.engine.vision import Features, encode_images
from tasks.errors import StudyError

REPEATS = 9
LARGE = 336 * 336
"""Pixels of an image of 144 tokens."""


def measure() -> Figure:
    """Questions by second of both."""
    work = draw_work()
    state = drawn_state(work.engine)
    work.engine.switch(state)
    set_peft_model_state_dict(work.plain, state)
    features = encode_images(work.engine.base, list(work.images.values()))
    different = check(work, features)
    ways = {
        "engine": lambda: by_engine(work, features),
        "with features": lambda: by_engine(work, features_of_test(work)),
        "one by one": lambda: one_by_one(work),
    }
    seconds = in_turn(ways, REPEATS, "evaluate_vs_one_by_one")
    rates = {name: rate(len(work.test), each) for name, each in seconds.items()}
    return Figure(
        "evaluate_vs_one_by_one",
        rates["engine"],
        rates["one by one"],
        target=8,
        ceiling=rate(len(work.test), [limit(ways["engine"])]) / rates["one by one"],
        unit="questions/s",
        notes={
            "questions": len(work.test),
            "different answers among them": different,
            "spread": spread(seconds["engine"], seconds["one by one"]),
            "ratio with features computed": rates["with features"] / rates["one by one"],
            "seconds without sharing by seconds with it": sharing(work, features),
        },
    )


def features_of_test(work: Work) -> Features:
    """The features that the questions need."""
    wanted = {image_id for prompt in work.test for image_id in prompt.image_ids}
    return encode_images(work.engine.base, [work.images[image_id] for image_id in sorted(wanted)])


def by_engine(work: Work, features: Features) -> list[str]:
    """The answers in the engine's way; nothing is left of an earlier call but the features."""
    work.engine.base.tokenised.clear()
    return answers(work.engine, features, encode(work.engine.base, features, work.test))


def answers(engine: Engine, features: Features, examples: Sequence[Example]) -> list[str]:
    """The engine's answers within a study's bounds."""
    tokens, most = EVALUATION.tokens_per_pass, EVALUATION.max_new_tokens
    return [answer.text for answer in generate(engine, features, examples, tokens=tokens, max_new_tokens=most)]


def sharing(work: Work, features: Features) -> dict[str, float]:
    """How many times as long answering takes where every prompt is computed whole."""
    base = work.engine.base
    alone = [replace(each, messages=each.messages[-1:], image_ids=each.image_ids[-1:]) for each in work.test]
    larger = with_larger_images(base)
    seen = encode_images(larger, [work.images[name] for name in sorted({each.image_ids[-1] for each in alone})])
    return {
        "three cases": gained(work.engine, features, encode(base, features, work.test)),
        "no cases": gained(work.engine, features, encode(base, features, alone)),
        "no cases, larger images": gained(work.engine, seen, encode(larger, seen, alone)),
    }


def gained(engine: Engine, features: Features, examples: Sequence[Example]) -> float:
    """The same of some examples; StudyError where an answer differs."""
    found: dict[float, list[str]] = {}

    def answered(worth: float) -> None:
        usual, prefix.WORTH = prefix.WORTH, worth
        found[worth] = answers(engine, features, examples)
        prefix.WORTH = usual

    ways = {"shared": partial(answered, prefix.WORTH), "whole": partial(answered, 1.0)}
    seconds = in_turn(ways, REPEATS, "sharing")
    shared, whole = found.values()
    if shared != whole:
        raise StudyError("Expected the same answers of shared and of whole prompts, found others: mend the sharing.")
    return statistics.median(seconds["whole"]) / statistics.median(seconds["shared"])


def with_larger_images(base: Base) -> Base:
    """The same model, to which images are shown larger."""
    processor = deepcopy(base.image_processor)
    processor.size = {"shortest_edge": LARGE - LARGE // 20, "longest_edge": LARGE + LARGE // 20}
    return replace(base, image_processor=processor, tokenised={})


@torch.inference_mode()
def one_by_one(work: Work) -> list[str]:
    """The answers in the common way."""
    base, texts = work.engine.base, []
    for prompt in work.test:
        inputs = from_pixels(base, work.images, [prompt], answers=False)
        written = work.plain.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=EVALUATION.max_new_tokens,
            eos_token_id=base.tokenizer.eos_token_id,
            pad_token_id=base.tokenizer.pad_token_id,
        )
        new = written[0, inputs["input_ids"].shape[1] :]
        texts.append(str(base.tokenizer.decode(new, skip_special_tokens=True)).strip())
    return texts


def check(work: Work, features: Features) -> int:
    """How many answers differ: none, or StudyError."""
    ours, theirs = by_engine(work, features), one_by_one(work)
    different = sum(one != other for one, other in zip(ours, theirs, strict=True))
    if different:
        raise StudyError(
            f"Expected the same {len(ours)} answers of both ways, found {different} that differ: "
            "the comparison would mean nothing; mend the way that is wrong."
        )
    return different


if __name__ == "__main__":
    print(measure())
