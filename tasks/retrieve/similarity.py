"""Turns images and questions into unit rows, whose inner product is the similarity."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.errors import StudyError
from tasks.retrieve.rows import Rows

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

WORDS = 1024
TOKENS = r"(?u)[a-z0-9]+|[^\W\d_a-z]"
"""Single letters count as words: the "t" of T2, and each Chinese character."""


Texts = Sequence[str] | Rows
"""Texts, or their rows from a text encoder."""


def hash_words(texts: Sequence[str]) -> Rows:
    """Unit rows `(n, WORDS)` of hashed words (arXiv 0902.2206): no vocabulary, so the same at every hospital.

    A text without words gives a zero row.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=WORDS, token_pattern=TOKENS, norm="l2")
    return np.asarray(vectorizer.transform(texts).toarray(), np.float32) if texts else np.zeros((0, WORDS), np.float32)


@dataclass(frozen=True)
class Encoder:
    """Concatenates an image's features and its question's TF-IDF (or encoded row), weighted.

    The inner product of two rows is `w * cosine(images) + (1 - w) * cosine(questions)`. A question without any word of
    the library's vocabulary, or an image equal to the library's mean, gives a zero part: the other part alone makes the
    row. If both parts are zero, or the other part has weight 0, the row is zero and equally unlike every case.
    """

    image_mean: Rows
    """`(d,)`, subtracted from every image: without this, what all images share would make every pair look alike."""
    vocabulary: tuple[str, ...]
    idf: tuple[float, ...]
    image_weight: float
    text_mean: Rows | None = None
    """`(t,)`, mean of the library's questions if a text encoder made their rows; None if questions are words."""

    def encode(self, images: Rows, questions: Texts) -> Rows:
        """Unit rows `(n, d + t)` of image features `(n, d)` and their questions; `t` is the width of a question's part.

        Raises StudyError if a feature is not finite.
        """
        pictures, texts = self.parts(images, questions)
        rows = [math.sqrt(self.image_weight) * pictures, math.sqrt(1 - self.image_weight) * texts]
        return np.ascontiguousarray(_unit(np.hstack(rows)))

    def parts(self, images: Rows, questions: Texts) -> tuple[Rows, Rows]:
        """Unit rows of the images alone, `(n, d)`, and of the questions alone, `(n, t)`.

        Raises StudyError if a feature is not finite.
        """
        _refuse_broken(images)
        pictures = _unit(images - self.image_mean)
        if self.text_mean is not None:
            return pictures, _unit(np.asarray(questions, np.float32) - self.text_mean)
        return pictures, self._words([str(question) for question in questions])

    def _words(self, questions: Sequence[str]) -> Rows:
        if not self.vocabulary or not questions:  # scikit-learn refuses both
            return np.zeros((len(questions), len(self.vocabulary)), np.float32)
        return _vectorizer(self.vocabulary, self.idf).transform(questions).toarray().astype(np.float32)


def fit_encoder(images: Rows, questions: Texts, image_weight: float) -> Encoder:
    """Fit an encoder to one library alone: image features `(n, d)` and `n` questions, n > 0.

    Questions are texts, or rows `(n, t)` from a text encoder.

    Raises StudyError if a feature is not finite.
    """
    _refuse_broken(images)
    # In float64 the mean of equal rows is that row. Rounding must not leave a library of one image a nonzero part.
    mean = images.mean(0, dtype=np.float64).astype(np.float32)
    if isinstance(questions, np.ndarray):
        return Encoder(mean, (), (), image_weight, questions.mean(0, dtype=np.float64).astype(np.float32))
    vectorizer = _vectorizer()
    try:
        vectorizer.fit(questions)
    except ValueError:  # no question holds a word: the images alone decide
        return Encoder(mean, (), (), image_weight)
    words = tuple(str(word) for word in vectorizer.get_feature_names_out())
    return Encoder(mean, words, tuple(float(weight) for weight in vectorizer.idf_), image_weight)


def encoder_to_json(encoder: Encoder) -> dict[str, Any]:
    """An encoder as JSON, for `encoder_from_json`."""
    means = {"image_mean": encoder.image_mean, "text_mean": encoder.text_mean}
    return asdict(encoder) | {name: mean if mean is None else mean.tolist() for name, mean in means.items()}


def encoder_from_json(values: Mapping[str, Any]) -> Encoder:
    """The encoder from the content of a library's `encoder.json`."""
    mean = values["text_mean"]
    return Encoder(
        np.asarray(values["image_mean"], np.float32),
        tuple(values["vocabulary"]),
        tuple(values["idf"]),
        values["image_weight"],
        None if mean is None else np.asarray(mean, np.float32),
    )


def _refuse_broken(images: Rows) -> None:
    broken = int((~np.isfinite(images)).any(1).sum())
    if broken:
        raise StudyError(
            f"Expected finite image features, found others for {broken} of {len(images)} cases: "
            "the model's vision tower overflows; set model.device to cpu, or change model.name."
        )


def _vectorizer(vocabulary: Sequence[str] = (), idf: Sequence[float] = ()) -> "TfidfVectorizer":
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        token_pattern=TOKENS,
        sublinear_tf=True,
        max_features=WORDS,
        vocabulary=list(vocabulary) or None,
    )
    if idf:
        vectorizer.idf_ = np.asarray(idf)
    return vectorizer


def _unit(rows: Rows) -> Rows:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
