"""How near what is asked lies to the library, beside how near the library's own cases lie to each other.

The similarity is that of retrieval: cosines of images, and of questions, each alone. Only means over many requests are
ever given, so that no single request can be told from them.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.records import Case
from tasks.retrieve.retriever import Retriever
from tasks.retrieve.rows import Rows

WINDOW = 500
"""How many of the last requests a mean is of."""
STEP = 20
"""Means change after so many requests, and there is none before."""
SAMPLE = 1000
"""Most cases of the library that are compared with: evenly spaced ones of more."""


@dataclass(frozen=True)
class Nearness:
    """Similarity, -1 to 1, to the nearest case of a library, by images and by questions; `(n,)` each, NaN if none."""

    image: Rows
    question: Rows

    @property
    def means(self) -> tuple[float, float]:
        """Of images and of questions, to two decimals, without those that have no other to be near to."""
        known = [each[np.isfinite(each)] for each in (self.image, self.question)]
        image, question = (round(float(each.mean()), 2) if len(each) else float("nan") for each in known)
        return image, question


class Yardstick:
    """A library's images and questions, to measure others by.

    Args:
        retriever: of the library.
        cases: the library's cases.
    """

    def __init__(self, retriever: Retriever, cases: Sequence[Case]) -> None:
        self._encoder = retriever.encoder
        step = -(-len(cases) // SAMPLE) or 1
        sampled = list(cases)[::step]
        self._images, self._questions = self._encoder.parts(*retriever.inputs.of(sampled))
        _, images = np.unique([case.image_id for case in sampled], return_inverse=True)
        same = images[:, None] == images
        self.own = Nearness(
            _nearest(self._images @ self._images.T, same), _nearest(self._questions @ self._questions.T, same)
        )
        """Of each of the library's cases to those about other images."""

    def measure(self, images: Rows, questions: Sequence[str] | Rows) -> Nearness:
        """How near queries are: image rows `(n, d)`, and texts or rows as the library's encoder takes them."""
        pictures, texts = self._encoder.parts(images, questions)
        return Nearness(_nearest(pictures @ self._images.T), _nearest(texts @ self._questions.T))


class Drift:
    """The means of the last requests; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._count = 0
        self.asked = (float("nan"), float("nan"))
        """Mean nearness of images and of questions that were asked, to two decimals; NaN before there are enough."""

    def add(self, nearness: Sequence[tuple[float, float]]) -> None:
        """Count requests in, each by its nearness of image and question."""
        with self._lock:
            for pair in nearness:
                self._seen.append(pair)
                self._count += 1
                if self._count % STEP == 0:
                    rows = np.array(self._seen, np.float32)
                    self.asked = Nearness(rows[:, 0], rows[:, 1]).means


def _nearest(similarities: Rows, left_out: np.ndarray | None = None) -> Rows:
    """The largest of each row `(n, m)` that is not left out; NaN where there is none."""
    if not similarities.shape[1]:
        return np.full(len(similarities), np.nan, np.float32)
    if left_out is not None:
        similarities = np.where(left_out, -np.inf, similarities)
    largest = similarities.max(1)
    return np.where(np.isfinite(largest), largest, np.nan).astype(np.float32)
