"""Rows of an encoder: made of what the settings ask for, kept whole on disk, looked up by what they are of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_samples import CASES, IMAGES

from tasks.records import Image
from tasks.retrieve.encoded import Encoded, Inputs, load_encoded
from tasks.retrieve.encoders.encoder import DualEncoder
from tasks.retrieve.encoders.open import encode_all
from tasks.retrieve.index_kinds import FLAT_UP_TO, choose_kind
from tasks.settings import EncoderSettings

TEXTS = ["mass", "a nodule", "", "effusion"]
ENCODER = DualEncoder(
    lambda pictures: torch.tensor([[float(each.width), float(each.height), 1.0] for each in pictures]),
    lambda texts: torch.tensor([[1.0, float(len(each))] for each in texts]),
)
"""Tells each image by its size and each text by its length."""


def settings_of(encoder: Any, text: Any) -> EncoderSettings:
    return EncoderSettings(encoder=encoder, text=text, encoder_model=None if encoder == "base" else "folder")


def unit(rows: list[list[float]]) -> np.ndarray:
    found = np.array(rows, np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("images", [True, False], ids=["encoder sees", "base sees"])
@pytest.mark.parametrize("texts", [True, False], ids=["encoder reads", "words"])
def test_only_what_the_settings_ask_for_is_encoded(images: bool, texts: bool, tmp_path: Path) -> None:
    settings = settings_of("clip" if images else "base", "encoder" if texts else "tfidf")
    made = encode_all(ENCODER, settings, IMAGES, TEXTS)
    (tmp_path / "encoded.safetensors").write_bytes(made.to_bytes())
    for found in (made, load_encoded(tmp_path / "encoded.safetensors")):
        assert list(found.image_places) == ([image.id for image in IMAGES] if images else [])
        assert list(found.text_places) == (TEXTS if texts else [])
        assert len(found.images) == len(found.image_places) and len(found.texts) == len(found.text_places)
        assert found.images.dtype == found.texts.dtype == np.float32
        if images:
            chosen = [IMAGES[place] for place in (4, 0, 4)]
            expected = unit([[each.width, each.height, 1] for each in chosen])
            np.testing.assert_allclose(found.pooled([each.id for each in chosen]), expected, atol=1e-6)
        if texts:
            expected = unit([[1, len(each)] for each in ("effusion", "", "mass")])
            np.testing.assert_allclose(found.read(["effusion", "", "mass"]), expected, atol=1e-6)
    assert made.to_bytes() == encode_all(ENCODER, settings, IMAGES, TEXTS).to_bytes()


class OfBase:
    """Features of the base: an image's row is its number."""

    def pooled(self, image_ids: list[str]) -> np.ndarray:
        return np.array([[float(each.rsplit("-")[1])] for each in image_ids], np.float32)


def test_a_case_is_compared_by_what_there_is() -> None:
    cases, questions = CASES[:3], [case.question for case in CASES[:3]]
    rows, texts = Inputs(OfBase()).of(cases)  # type: ignore[arg-type]
    assert rows.tolist() == [[0.0], [1.0], [2.0]] and texts == questions
    read = encode_all(ENCODER, settings_of("base", "encoder"), [], questions)
    rows, texts = Inputs(OfBase(), read).of(cases)  # type: ignore[arg-type]
    assert rows.tolist() == [[0.0], [1.0], [2.0]]
    np.testing.assert_array_equal(texts, read.texts)
    seen = encode_all(ENCODER, settings_of("clip", "tfidf"), IMAGES, questions)
    rows, texts = Inputs(OfBase(), seen).of(cases[::-1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(rows, seen.images[[2, 1, 0]])
    assert texts == questions[::-1]


def test_an_image_without_a_row_is_no_other_image() -> None:
    made = encode_all(ENCODER, settings_of("clip", "tfidf"), [Image("only", IMAGES[0].data, 84, 84)], [])
    with pytest.raises(KeyError):
        made.pooled(["other"])
    with pytest.raises(KeyError):
        Encoded().read([""])


@pytest.mark.parametrize("rows", [0, 1, FLAT_UP_TO, FLAT_UP_TO + 1])
def test_an_index_is_chosen_by_how_many_rows_it_holds(rows: int) -> None:
    """All are compared while they are few; what the settings name stays, unless there is nothing to train it on."""
    assert choose_kind("auto", rows) == ("flat" if rows <= FLAT_UP_TO else "ivf")
    for named in ("flat", "ivf", "hnsw"):
        assert choose_kind(named, rows) == (named if rows else "flat")
