"""Encoded rows of a hospital's distinct images and texts, and their lookup by case."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from tasks.records import Case
from tasks.retrieve.rows import Rows
from tasks.retrieve.similarity import Texts

ENCODED = "encoded.safetensors"


class Pooled(Protocol):
    """A source of image rows: the base's features, or an encoder's rows."""

    def pooled(self, image_ids: Sequence[str]) -> Rows:
        """The row of each image, `(n, d)` float32."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Rows by image and by text; empty if the base's features, or words, are used instead."""

    images: Rows = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """`(n, d)`."""
    texts: Rows = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """`(m, t)`."""
    image_places: Mapping[str, int] = field(default_factory=dict)
    text_places: Mapping[str, int] = field(default_factory=dict)

    def pooled(self, image_ids: Sequence[str]) -> Rows:
        """The row of each image, `(n, d)`."""
        return self.images[[self.image_places[each] for each in image_ids]]

    def read(self, texts: Sequence[str]) -> Rows:
        """The row of each text, `(n, t)`."""
        return self.texts[[self.text_places[each] for each in texts]]

    def to_bytes(self) -> bytes:
        """The content as one safetensors file."""
        from safetensors.numpy import save

        # A single metadata entry: safetensors writes several entries in an order that changes from call to call.
        index = json.dumps({"images": list(self.image_places), "texts": list(self.text_places)})
        return save({"images": self.images, "texts": self.texts}, {"index": index})


def load_encoded(path: Path) -> Encoded:
    """Load rows from a file that holds the output of `to_bytes`."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        index = json.loads(file.metadata()["index"])
        images, texts = file.get_tensor("images"), file.get_tensor("texts")
    places = [{name: place for place, name in enumerate(index[kind])} for kind in ("images", "texts")]
    return Encoded(images, texts, places[0], places[1])


@dataclass(frozen=True)
class Inputs:
    """The inputs of a case's comparison: its image's row, and its question as words or as a row."""

    features: Pooled
    """The base's features."""
    encoded: Encoded = Encoded()

    def of(self, cases: Sequence[Case]) -> tuple[Rows, Texts]:
        """Image rows `(n, d)` of cases, and their questions as texts or as rows `(n, t)`."""
        source = self.encoded if self.encoded.image_places else self.features
        return source.pooled([case.image_id for case in cases]), self.texts([case.question for case in cases])

    def texts(self, texts: Sequence[str]) -> Texts:
        """The texts themselves, or their rows if a text encoder is used."""
        return self.encoded.read(texts) if self.encoded.text_places else list(texts)
