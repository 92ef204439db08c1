"""Records of a dataset: cases, images, captions, findings, pairs of images that are copies, and images seen before."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["closed", "open"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Case:
    """One question about one image, with its reference answer."""

    id: str
    """Unique id, which includes the dataset's row id, such as `vqa-rad:417`."""
    image_id: str
    question: str
    answer: str
    kind: Kind
    """`closed` if the answer is chosen from stated answers (nearly always yes or no), else `open`."""
    split: Split
    dataset: str
    language: str
    modality: str | None = None
    organ: str | None = None
    topic: str | None = None
    """The dataset's question type, such as `PRES` or `Modality`."""
    group: str | None = None
    """The patient or published case, if the dataset states it: a split must not separate images of one group."""
    site: str | None = None
    """The hospital that made the image, if the dataset states it."""
    options: tuple[str, ...] = ()
    """The answers to choose from, as published and in order, if the question is multiple choice."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image file with its bytes as published; for a DICOM file, a PNG of its pixels.

    `tasks.records.pixels` decodes the bytes into a picture, for all code that looks at images.
    """

    id: str
    data: bytes
    width: int
    """In pixels of the upright picture; so is `height`."""
    height: int


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image that a base was trained on, without its name, its pixels or its texts."""

    dataset: str
    pixels: bytes
    """sha256 of the decoded pixels (`tasks.records.pixels.pixel_digest`)."""
    shape: bytes
    """Signs of the picture's low frequencies, one bit each (`tasks.cases.seen.shape_bits`); empty for a blank image."""


@dataclass(frozen=True, slots=True)
class Caption:
    """The dataset's free text about an image, and the properties that it states."""

    image_id: str
    text: str
    split: Split
    dataset: str
    language: str
    modality: str | None = None
    plane: str | None = None
    organ: str | None = None
    sex: str | None = None
    age: str | None = None
    """In years, as published."""
    group: str | None = None
    """As `Case.group`."""
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The source of a synthetic case."""

    case_id: str
    source: Literal["caption", "metadata"]
    start: int
    """First character of the span in the caption; 0 for metadata."""
    end: int
    """One past the span's last character; 0 for metadata."""
    span: str
    """The caption's words, or the field and its value, such as `modality=ct`."""
    generator: str
    """`rules`, or the model that wrote the question."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One known abnormality in an image, with the pixels that show it."""

    image_id: str
    name: str
    position: str
    """Vertical and horizontal position in the image, such as `upper left`."""
    size: str
    mask: bytes
    """PNG, 8-bit grayscale, same size as the image: 255 on the finding."""


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Two images of which one is a copy of the other."""

    image_a: str
    image_b: str
    relation: Literal["identical_bytes", "identical_pixels", "near_duplicate", "flipped"]
    """The strongest relation that holds, in this order; `flipped` is a near-duplicate after mirroring or flipping."""
    correlation: float
    """Correlation of the images' detail after alignment, at most 1; 1 for identical pixels."""
