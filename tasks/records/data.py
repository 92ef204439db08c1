"""What a dataset holds: cases, images, captions, findings; and pairs of images that are copies."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["closed", "open"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Case:
    """One question about one image, with its reference answer."""

    id: str
    """Unique in its dataset; holds the dataset's own row id, as `vqa-rad:417`."""
    image_id: str
    question: str
    answer: str
    kind: Kind
    """`closed` for a choice among stated answers (nearly always yes or no), else `open`."""
    split: Split
    dataset: str
    language: str
    modality: str | None = None
    organ: str | None = None
    topic: str | None = None
    """The dataset's own question type, as `PRES` or `Modality`."""
    group: str | None = None
    """Images that must not be parted by a split (a patient or a published case), where the dataset says so."""
    site: str | None = None
    """The hospital that made the image, where the dataset says so."""
    options: tuple[str, ...] = ()
    """The answers to choose from, as published and in their order, where the question is multiple choice."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image file, its bytes as published; a DICOM file as the PNG of its pixels.

    What picture the bytes show, `tasks.records.pixels` decides for all.
    """

    id: str
    data: bytes
    width: int
    """In pixels of the picture as it is seen, upright; so is the height."""
    height: int


@dataclass(frozen=True, slots=True)
class Caption:
    """What the dataset says about an image in free text, and what it states of it beside."""

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
    """As a case's: images that must not be parted by a split."""
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Where a synthetic case came from."""

    case_id: str
    source: Literal["caption", "metadata"]
    start: int
    """First character of the span in the caption; 0 for metadata."""
    end: int
    """One past its last character; 0 for metadata."""
    span: str
    """The caption's own words, or the field and its value, as `modality=ct`."""
    generator: str
    """`rules`, or the model that wrote it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One known abnormality in an image, with the pixels that show it."""

    image_id: str
    name: str
    position: str
    """Height and side in the image, as `upper left`."""
    size: str
    mask: bytes
    """PNG, 8-bit grayscale, same size as the image: 255 on the finding."""


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Two images of which one is a copy of the other."""

    image_a: str
    image_b: str
    relation: Literal["identical_bytes", "identical_pixels", "near_duplicate", "flipped"]
    """The strongest that holds, in that order; `flipped` is a near-duplicate once mirrored or turned upside down."""
    correlation: float
    """Of their detail once laid over each other, up to 1; 1 for identical pixels."""
