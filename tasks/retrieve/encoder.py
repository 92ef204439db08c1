"""Images and questions in, unit rows out: what similarity is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

Rows = NDArray[np.float32]

WORDS = 1024


@dataclass(frozen=True)
class Encoder:
    """Weighted concatenation of an image's pooled features and its question's TF-IDF.

    The inner product of two rows is `w * cosine(images) + (1 - w) * cosine(questions)`.
    """

    image_mean: Rows
    """`(d,)`: what all images of the library share is taken off, or every pair looks alike."""
    vocabulary: tuple[str, ...]
    idf: tuple[float, ...]
    image_weight: float

    def encode(self, images: Rows, questions: Sequence[str]) -> Rows:
        """Unit rows `(n, d + words)` of pooled image features `(n, d)` and their questions."""
        pictures = _unit(images - self.image_mean)
        words = _vectorizer(self.vocabulary, self.idf).transform(questions).toarray()
        rows = np.hstack(
            [np.sqrt(self.image_weight) * pictures, np.sqrt(1 - self.image_weight) * words.astype(np.float32)]
        )
        return np.ascontiguousarray(_unit(rows))


def fit_encoder(images: Rows, questions: Sequence[str], image_weight: float) -> Encoder:
    """An encoder whose statistics come from one library alone: pooled features `(n, d)` and `n` questions."""
    vectorizer = _vectorizer()
    try:
        vectorizer.fit(questions)
    except ValueError:  # no question holds a word: the images alone decide
        return Encoder(images.mean(0), (), (), image_weight)
    words = tuple(str(word) for word in vectorizer.get_feature_names_out())
    return Encoder(images.mean(0), words, tuple(float(weight) for weight in vectorizer.idf_), image_weight)


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
