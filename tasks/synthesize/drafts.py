"""A draft of a question-answer pair, before it is checked."""

from dataclasses import dataclass
from typing import Literal

from tasks.records import Caption

Source = Literal["caption", "metadata"]


@dataclass(frozen=True, slots=True)
class Draft:
    """One pair, with the words or the metadata that support it."""

    caption: Caption
    topic: str
    """`modality`, `plane`, `organ`, `finding`, `side`, `location`, `size`, `presence`, `sex` or `age`."""
    question: str
    answer: str
    source: Source
    start: int
    end: int
    span: str
    """The caption's words from start to end, or `field=value`."""
    value: str = ""
    """Value in a yes/no question: the modality, the plane, the side, the size or the finding."""
    about: str = ""
    """The finding that the question is about, for instance for its side or size."""

    @property
    def closed(self) -> bool:
        """Whether the answer is yes or no."""
        return self.answer.lower() in ("yes", "no")


def from_caption(
    caption: Caption, start: int, end: int, topic: str, question: str, answer: str, *, value: str = "", about: str = ""
) -> Draft:
    """A pair supported by words of the caption."""
    span = caption.text[start:end]
    return Draft(caption, topic, question, answer, "caption", start, end, span, value, about)


def from_metadata(caption: Caption, field: str, topic: str, question: str, answer: str, *, value: str = "") -> Draft:
    """A pair supported by a metadata field."""
    span = f"{field}={getattr(caption, field)}"
    return Draft(caption, topic, question, answer, "metadata", 0, 0, span, value)
