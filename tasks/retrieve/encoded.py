"""Rows that an encoder made of a hospital's images and texts, each once, and what a case is compared by."""

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
    """Where an image's row is looked up: the base's features, or an encoder's rows."""

    def pooled(self, image_ids: Sequence[str]) -> Rows:
        """The row of each image, `(n, d)` float32."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Rows by image and by text; empty where the base's features, or words, serve."""

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
        """As one safetensors file."""
        from safetensors.numpy import save

        # One entry of metadata only: safetensors writes several in an order that changes from call to call.
        index = json.dumps({"images": list(self.image_places), "texts": list(self.text_places)})
        return save({"images": self.images, "texts": self.texts}, {"index": index})


def load_encoded(path: Path) -> Encoded:
    """Rows that `to_bytes` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        index = json.loads(file.metadata()["index"])
        images, texts = file.get_tensor("images"), file.get_tensor("texts")
    places = [{name: place for place, name in enumerate(index[kind])} for kind in ("images", "texts")]
    return Encoded(images, texts, places[0], places[1])


@dataclass(frozen=True)
class Inputs:
    """What a hospital's cases are compared by: its images' rows, its questions as words or as rows."""

    features: Pooled
    """Of the base."""
    encoded: Encoded = Encoded()

    def of(self, cases: Sequence[Case]) -> tuple[Rows, Texts]:
        """Image rows `(n, d)`, and questions: texts, or rows `(n, t)`."""
        source = self.encoded if self.encoded.image_places else self.features
        return source.pooled([case.image_id for case in cases]), self.texts([case.question for case in cases])

    def texts(self, texts: Sequence[str]) -> Texts:
        """The texts themselves, or their rows where a text encoder reads them."""
        return self.encoded.read(texts) if self.encoded.text_places else list(texts)
