"""The base radiology: its text model, its parts, and what it is taught."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_samples import CASES
from test_smol_clip import checkpoint

from flows.radiology import LEFT_OUT
from tasks.cases.holdout import split_holdout
from tasks.engine.base import Base, load_base
from tasks.engine.families import smol_clip
from tasks.engine.families.smol_clip import Part
from tasks.pretrain.blank import blank_base, train_tokenizer
from tasks.pretrain.radiology import CONTEXTS, compose, learned, plain_text_model, prompts_of
from tasks.records import Case, Neighbour


@pytest.fixture
def embedded() -> Base:
    return blank_base(train_tokenizer(["is there a mass in the left lung"] * 5, 300), 84, 64, 2, 0)


def test_the_text_model_computes_on_text_what_it_did(embedded: Base) -> None:
    ids = torch.tensor([embedded.tokenizer("is there a mass, or nothing?").input_ids])
    with torch.inference_mode():
        expected = embedded.model(input_ids=ids).logits
        found = plain_text_model(embedded)(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_base_is_composed_with_further_words(
    embedded: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(checkpoint(), weights)
    monkeypatch.setattr(Part, "path", property(lambda part: weights))
    before = len(embedded.tokenizer("cardiomegaly").input_ids)
    compose(embedded, ["cardiomegaly"] * 5, tmp_path / "base")
    base = load_base(str(tmp_path / "base"), device="cpu")
    assert len(base.tokenizer("cardiomegaly").input_ids) < before
    tower = base.model.model.vision_tower.state_dict()
    converted = smol_clip.convert_tower(checkpoint())[1]
    assert all(torch.equal(tower[name], tensor) for name, tensor in converted.items())
    assert base.tokenizer("is there a mass").input_ids == embedded.tokenizer("is there a mass").input_ids
    text, shape = base.model.config.text_config, embedded.model.config.text_config
    assert (text.hidden_size, text.num_hidden_layers) == (shape.hidden_size, shape.num_hidden_layers)
    rows = embedded.model.get_input_embeddings().weight
    assert not torch.allclose(base.model.get_input_embeddings().weight[: len(rows)], rows)


@pytest.mark.parametrize("left_out", [LEFT_OUT, 0.7])
def test_images_that_hospitals_hold_out_are_not_learned(left_out: float) -> None:
    """With the seed 0, a hospital that holds out less finds its images among those left out."""
    cases = [replace(CASES[0], id=str(number), image_id=f"image {number // 3}") for number in range(1200)]
    known = {case.image_id for case in learned(cases, left_out)}
    assert len(known) == 400 - round(left_out * 400)
    for part in (cases[::2], cases[300:]):
        _, held_out = split_holdout(part, left_out / 2, 0)
        assert held_out
        assert not known & {case.image_id for case in held_out}


def test_cases_that_are_left_out_are_not_shown() -> None:
    cases = [replace(CASES[0], id=str(number), image_id=f"image {number}") for number in range(400)]
    prompts = prompts_of(cases[:200], chain(cases), copies=0, seed=0)
    assert {each for prompt in prompts for each in prompt.retrieved_ids} <= {case.id for case in cases[:200]}


def chain(cases: list[Case]) -> list[Neighbour]:
    """Each case's three followers as its neighbours."""
    return [
        Neighbour(case.id, rank, cases[(place + rank + 1) % len(cases)].id, 1 - rank / 10)
        for place, case in enumerate(cases)
        for rank in range(3)
    ]


def test_every_case_is_asked_about_its_image_and_each_copy_in_random_contexts() -> None:
    cases = [replace(CASES[0], id=str(number), image_id=f"image {number}") for number in range(400)]
    prompts = prompts_of(cases, chain(cases), copies=2, seed=0)
    assert Counter(prompt.image_ids for prompt in prompts) == Counter(
        (f"image {number}{end}",) for number in range(400) for end in ("", "#1", "#2")
    )
    counts = Counter(len(prompt.retrieved_ids) for prompt in prompts)
    assert counts.keys() == CONTEXTS.keys()
    for k, share in CONTEXTS.items():
        assert counts[k] / 1200 == pytest.approx(share, abs=0.05)
    assert prompts == prompts_of(cases, chain(cases), copies=2, seed=0)
    assert prompts != prompts_of(cases, chain(cases), copies=2, seed=1)
