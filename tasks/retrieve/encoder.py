"""Images and questions in, unit rows out: what similarity is measured on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from tasks.errors import StudyError

Rows = NDArray[np.float32]

WORDS = 1024


@dataclass(frozen=True)
class Encoder:
    """Weighted concatenation of an image's pooled features and its question's TF-IDF.

    The inner product of two rows is `w * cosine(images) + (1 - w) * cosine(questions)`. A question without a word of
    the library, and an image that is the library's mean, have no direction: the other part alone makes the row. Where
    neither has one, or its weight is 0, the row is zero and equally unlike every case.
    """

    image_mean: Rows
    """`(d,)`: what all images of the library share is taken off, or every pair looks alike."""
    vocabulary: tuple[str, ...]
    idf: tuple[float, ...]
    image_weight: float

    def encode(self, images: Rows, questions: Sequence[str]) -> Rows:
        """Unit rows `(n, d + words)` of pooled image features `(n, d)` and their questions.

        Raises StudyError where a feature is not a finite number.
        """
        _refuse_broken(images)
        pictures = _unit(images - self.image_mean)
        rows = [math.sqrt(self.image_weight) * pictures, math.sqrt(1 - self.image_weight) * self._words(questions)]
        return np.ascontiguousarray(_unit(np.hstack(rows)))

    def _words(self, questions: Sequence[str]) -> Rows:
        if not self.vocabulary or not questions:  # scikit-learn refuses both
            return np.zeros((len(questions), len(self.vocabulary)), np.float32)
        return _vectorizer(self.vocabulary, self.idf).transform(questions).toarray().astype(np.float32)


def fit_encoder(images: Rows, questions: Sequence[str], image_weight: float) -> Encoder:
    """An encoder whose statistics come from one library alone: pooled features `(n, d)` and `n` questions, n > 0.

    Raises StudyError where a feature is not a finite number.
    """
    _refuse_broken(images)
    # In float64 the mean of equal rows is that row: rounding must not give a library of one image a direction.
    mean = images.mean(0, dtype=np.float64).astype(np.float32)
    vectorizer = _vectorizer()
    try:
        vectorizer.fit(questions)
    except ValueError:  # no question holds a word: the images alone decide
        return Encoder(mean, (), (), image_weight)
    words = tuple(str(word) for word in vectorizer.get_feature_names_out())
    return Encoder(mean, words, tuple(float(weight) for weight in vectorizer.idf_), image_weight)


def _refuse_broken(images: Rows) -> None:
    broken = int((~np.isfinite(images)).any(1).sum())
    if broken:
        raise StudyError(
            f"Expected finite image features, found others for {broken} of {len(images)} cases: "
            "the model's vision tower overflows; set model.device to cpu, or change model.name."
        )


def _vectorizer(vocabulary: Sequence[str] = (), idf: Sequence[float] = ()) -> TfidfVectorizer:
    # Single letters stay: "t" of T2 and Chinese characters are words too.
    vectorizer = TfidfVectorizer(
        token_pattern=r"(?u)[a-z0-9]+|[^\W\d_a-z]",
        sublinear_tf=True,
        max_features=WORDS,
        vocabulary=list(vocabulary) or None,
    )
    if idf:
        vectorizer.idf_ = np.asarray(idf)
    return vectorizer


def _unit(rows: Rows) -> Rows:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
