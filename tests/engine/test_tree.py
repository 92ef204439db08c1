"""Prompts about one image in one training row give the loss and the gradients of separate rows."""

import pytest
import torch
from engine_samples import CASES, case, prompts_with_neighbours, randomised
from family_samples import every_family

from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.fast.tree import BRANCHES, collate_rows, row_length, rows_by_beginning, steps_of_rows
from tasks.engine.loss import answer_loss
from tasks.engine.prompt import Prompt, build_prompt, build_prompt_without_image
from tasks.engine.vision import Features

WORDS = ("Is there a mass?", "Where is it?", "What imaging modality is this, and what is wrong with it?", "What?")


def prompts() -> list[Prompt]:
    """Several images with several questions each, with and without the same cases before them, and none at all."""
    asked = [
        build_prompt(case(n, image, text, answer), CASES[:shown])
        for image, shown in (("image-1", 0), ("image-2", 2), ("image-4", 0))
        for n, (text, answer) in enumerate(zip(WORDS, ("yes", "upper left", "a large effusion", "no"), strict=True))
    ]
    return [*asked, *prompts_with_neighbours(), *map(build_prompt_without_image, CASES)]


@every_family
def test_loss_and_gradients_are_those_of_separate_rows(engine: Engine, features: Features) -> None:
    base = engine.base
    engine.switch(randomised(engine.read(), 1))
    examples = encode(base, features, prompts())
    rows = rows_by_beginning(base, examples, torch.Generator().manual_seed(3))
    assert (max(map(len, rows)) > 1) == base.family.causal
    apart = [example for row in rows for example in row]
    assert sorted(map(str, apart)) == sorted(map(str, examples))
    found = {}
    for name, batch in (("apart", collate(base, features, apart)), ("rows", collate_rows(base, features, rows))):
        if name == "rows" and not base.family.causal:
            continue
        loss = answer_loss(base, batch)
        loss.backward()
        gradients = {key: parameter.grad.clone() for key, parameter in engine.named_parameters().items()}
        engine.peft.zero_grad(set_to_none=True)
        found[name] = float(loss.detach()), gradients
    if base.family.causal:
        assert found["rows"][0] == pytest.approx(found["apart"][0], rel=1e-5)
        for key, expected in found["apart"][1].items():
            torch.testing.assert_close(
                found["rows"][1][key], expected, rtol=1e-3, atol=1e-6 + 1e-4 * float(expected.abs().max())
            )


def test_a_row_holds_its_image_once(engine: Engine, features: Features) -> None:
    base = engine.base
    examples = encode(
        base, features, [build_prompt(case(n, "image-2", text, "yes"), ()) for n, text in enumerate(WORDS)]
    )
    (row,) = rows_by_beginning(base, examples, torch.Generator().manual_seed(0))
    ids = collate_rows(base, features, [row]).inputs["input_ids"]
    assert ids.shape == (1, row_length(base, row))
    assert int((ids == base.image_token_id).sum()) == features.tokens("image-2")


def test_rows_are_bounded_and_steps_hold_whole_rows(engine: Engine, features: Features) -> None:
    many = [build_prompt(case(n, f"image-{n % 2}", f"Question {n}?", "yes"), ()) for n in range(5 * BRANCHES)]
    rows = rows_by_beginning(engine.base, encode(engine.base, features, many), torch.Generator().manual_seed(0))
    assert max(map(len, rows)) == BRANCHES
    steps = steps_of_rows(rows, 20)
    assert [row for step in steps for row in step] == rows
    assert all(sum(map(len, step)) >= 20 for step in steps[:-1])
    assert all(sum(map(len, step[:-1])) < 20 for step in steps)
