"""Further words for a base: against the library's own training, and what must not change."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Tokenizer

from tasks.engine.base import Base, load_base
from tasks.engine.written import write_base
from tasks.pretrain.blank import SPECIAL, blank_base, train_tokenizer
from tasks.pretrain.words import further_merges, learn_words

FREQUENCIES = {"pneumothorax": 97, "opacity": 61, "opaque": 43, "thorax": 29, "cardiomegaly": 17, "mass": 11}
TEXTS = [word for word, count in FREQUENCIES.items() for _ in range(count)]
FIRST = len(SPECIAL) + 256
"""Tokens of a vocabulary without merges: special ones and bytes."""


def merges_of(tokenizer: Qwen2Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]


@pytest.mark.parametrize("known", [0, 1, 4, 6])
def test_merges_go_on_as_the_library_would_have_gone_on(known: int) -> None:
    frequencies = {"ab": 97, "cd": 61, "abcd": 30, "ef": 17, "abef": 11, "ddd": 5}  # no two pairs are as frequent
    texts = [word for word, count in frequencies.items() for _ in range(count)]
    whole = merges_of(train_tokenizer(texts, FIRST + 7))
    part = train_tokenizer(texts, FIRST + known)
    assert merges_of(part) == whole[:known]
    assert len(whole) == 7
    assert further_merges(part.backend_tokenizer, texts, 7 - known) == whole[known:]


def test_rare_pairs_are_not_joined() -> None:
    part = train_tokenizer([], FIRST)
    assert further_merges(part.backend_tokenizer, ["ab"] * 2, 5) == []
    assert further_merges(part.backend_tokenizer, ["ab"] * 3, 5) == [("a", "b")]


@pytest.fixture
def base() -> Base:
    return blank_base(train_tokenizer(["mass left lung"] * 5, FIRST + 12), 84, 32, 1, 0)


def test_known_tokens_keep_number_and_meaning(base: Base) -> None:
    before = base.tokenizer
    rows = base.model.get_input_embeddings().weight.clone()
    widened = learn_words(base, TEXTS, len(before) + 20)
    assert len(before) < len(widened.tokenizer) <= len(before) + 20
    vocabulary = widened.tokenizer.get_vocab()
    assert {token: vocabulary[token] for token in before.get_vocab()} == before.get_vocab()
    embeddings = widened.model.get_input_embeddings().weight
    assert embeddings.shape[0] == len(widened.tokenizer) == widened.model.config.text_config.vocab_size
    assert torch.equal(embeddings[: len(rows)], rows)
    assert widened.model.get_output_embeddings().weight is embeddings
    assert widened.tokenizer.all_special_ids == before.all_special_ids
    assert widened.tokenizer.chat_template == before.chat_template
    for text in ("mass left lung", "a pneumothorax, no opacity", "Ödem <|im_end|>"):
        ids = widened.tokenizer(text).input_ids
        assert widened.tokenizer.decode(ids) == before.decode(before(text).input_ids) == text
    assert widened.tokenizer("mass left lung").input_ids == before("mass left lung").input_ids
    assert len(widened.tokenizer("pneumothorax").input_ids) < len(before("pneumothorax").input_ids)


def test_a_new_token_begins_as_the_mean_of_what_it_joins(base: Base) -> None:
    count = len(base.tokenizer)
    widened = learn_words(base, ["xyz"] * 5, count + 1)
    number = widened.tokenizer.get_vocab()
    (new,) = set(number) - set(base.tokenizer.get_vocab())
    assert len(new) == 2
    rows = widened.model.get_input_embeddings().weight
    assert torch.equal(rows[number[new]], (rows[number[new[0]]] + rows[number[new[1]]]) / 2)


def test_a_widened_base_is_loaded_as_any_other(base: Base, tmp_path: Path) -> None:
    widened = learn_words(base, TEXTS, 400)
    folder = tmp_path / "base"
    write_base(folder, widened.model, widened.tokenizer, widened.image_processor)
    loaded = load_base(str(folder), device="cpu")
    assert loaded.tokenizer("cardiomegaly").input_ids == widened.tokenizer("cardiomegaly").input_ids
    assert torch.equal(loaded.model.get_input_embeddings().weight, widened.model.get_input_embeddings().weight)
