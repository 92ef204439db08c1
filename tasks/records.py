"""The vocabulary that passes between stages: frozen dataclasses, each with the Parquet schema of its table."""

import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

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
    """One image file, its bytes as published; a DICOM file as the PNG of its pixels."""

    id: str
    data: bytes
    width: int
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
class Neighbour:
    """A case of a hospital's library that was retrieved for another case of that hospital."""

    case_id: str
    rank: int
    """0 is the nearest."""
    neighbour_id: str
    similarity: float
    """Inner product of unit vectors, from -1 to 1."""


@dataclass(frozen=True, slots=True)
class Update:
    """What a hospital sends to the coordinator after one round, beside its adapter tensors."""

    hospital: str
    round: int
    samples: int
    """Training cases seen in one epoch: the weight in FedAvg."""
    loss: float
    """Mean training loss per answer token."""
    steps: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one configuration or baseline answered to one test case."""

    configuration: str
    """As `fed+rag`, `base` or `majority`."""
    case_id: str
    hospital: str
    kind: Kind
    question: str
    reference: str
    prediction: str
    neighbours: tuple[str, ...]
    """Ids of the cases shown in the prompt, nearest first."""
    options: tuple[str, ...] = ()
    """As the case's: what the answer was to be chosen from."""
    confidence: float | None = None
    """Mean probability of the answer's tokens, as the model chose them; None where no model answered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one configuration's or baseline's answer to one test case was judged: all that a hospital shares of it.

    Case and image have numbers that tell nothing but which are the same, in every configuration and however images
    are dealt to hospitals. No text of a question or an answer is here, but a closed question's labels have numbers that
    can be guessed from their text, which the hospital's tally tells anyway.
    """

    configuration: str
    hospital: str
    case: int
    image: int
    kind: Kind
    choice: int
    """1 for multiple choice, else 0."""
    dataset: str
    modality: str | None
    organ: str | None
    topic: str | None
    correct: float
    """1 or 0, by our own rule; of an open question its exact match."""
    gold: int | None
    """The label that was right, of a closed question, as a number; None for an open one."""
    predicted: int | None
    """The label that was given; equals `gold` where the answer is right."""
    exact_match: float
    """As the scores below of open and closed questions alike, from 0 to 1."""
    bleu: float
    rouge_l: float
    token_recall: float
    f1: float
    lightfed: float
    lightfed_bleu: float
    lightfed_rouge_l: float
    llava_med: float
    llava_med_released: float
    confidence: float | None
    """Mean probability of the answer's tokens; None for what is not a model."""


@dataclass(frozen=True, slots=True)
class Saliency:
    """A map: how much each region of one image in a case's prompt has to do with the answer, by one method."""

    case_id: str
    method: str
    """`attention`, `rollout`, `relevance` or `occlusion`."""
    token: int | None
    """Which token of the answer, 0 the first; None for the whole answer."""
    layer: int | None
    """Of the text model, 0 the first, and its head: attention alone; None for all of them together."""
    head: int | None
    image_id: str
    rank: int | None
    """Of the retrieved case that brought the image, 0 the nearest; None for the question's own image."""
    rows: int
    columns: int
    weights: tuple[float, ...]
    """Of the regions, row by row: shares of the whole prompt's weight; of occlusion the fall of the answer's
    log-probability in nats as the region is covered, which is negative where that makes the answer likelier."""
    window: tuple[float, ...]
    """What the grid lies over: left, upper, right and lower edge, in pixels of the image."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one part of a case's prompt in all that has to do with the answer, by one method."""

    case_id: str
    method: str
    token: int | None
    """As `Saliency`'s, and the two below."""
    layer: int | None
    head: int | None
    part: str
    """`query_image`, `retrieved_images`, `retrieved_text`, `question` or `format` (what nobody wrote)."""
    share: float
    """From 0 to 1; over the parts they sum to 1, or are all 0 where nothing had any weight."""


@dataclass(frozen=True, slots=True)
class FailureModes:
    """In which ways the answer to one test case fails, by rules: a hospital's own, never shared.

    The names are `ignores_image`, `copies_neighbour`, `attends_to_border`, `attends_to_burned_in_text`,
    `diffuse_attention`, `right_for_wrong_region` and `says_yes_to_everything` (`tasks.evaluate.failures.MEANINGS`).
    """

    case_id: str
    modes: tuple[str, ...]
    """Those that were found; none where the answer was examined and shows no failure."""
    inapplicable: tuple[str, ...]
    """Those whose rule says nothing of this answer."""


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Two images of which one is a copy of the other."""

    image_a: str
    image_b: str
    relation: Literal["identical_bytes", "identical_pixels", "near_duplicate", "flipped"]
    """The strongest that holds, in that order; `flipped` is a near-duplicate once mirrored or turned upside down."""
    correlation: float
    """Of their detail once laid over each other, up to 1; 1 for identical pixels."""


@dataclass(frozen=True, slots=True)
class EpochLoss:
    """How far training had come after one epoch of a stage, or after one round of a federation."""

    stage: str
    """The stage's title; `federation` where the rows are rounds."""
    epoch: int
    """1 is the first."""
    train_loss: float
    """Mean loss per answer token while the epoch went on, in nats."""
    held_out_loss: float | None
    """The same after it, on training images kept out; None where there are none."""
    kept: bool
    """Whether the weights after this epoch are those that were kept."""


Record = TypeVar(
    "Record",
    Case,
    Image,
    Caption,
    Synthetic,
    Finding,
    Neighbour,
    Update,
    Prediction,
    Outcome,
    Saliency,
    Share,
    FailureModes,
    ImagePair,
    EpochLoss,
)

ARROW = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), bytes: pa.binary()}


def schema(record: type) -> pa.Schema:
    """The Arrow schema of a record class: optional fields nullable, everything else required."""
    hints = get_type_hints(record)
    return pa.schema([_field(field.name, hints[field.name]) for field in fields(record)])


def _field(name: str, hint: Any) -> pa.Field:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return pa.field(name, ARROW[next(a for a in arguments if a is not type(None))], nullable=True)
    if origin is Literal:
        return pa.field(name, pa.string(), nullable=False)
    if origin is tuple:
        return pa.field(name, pa.list_(ARROW[arguments[0]]), nullable=False)
    return pa.field(name, ARROW[hint], nullable=False)


BATCH = 64
"""Rows with bytes in them that are written or read at once: a row may hold a whole image."""


def write_table(sink: BinaryIO, record: type[Record], rows: Iterable[Record]) -> None:
    """Write rows of one record class as a Parquet table, in the given order.

    Rows that hold bytes are written as they come, a batch of them in memory.
    Raises ValueError where a required value is None.
    """
    columns = schema(record)
    waiting = iter(rows)
    most = BATCH if pa.binary() in columns.types else None
    with pq.ParquetWriter(sink, columns, compression="zstd") as writer:
        while batch := list(islice(waiting, most)):
            writer.write_table(_table(record, columns, batch))


def _table(record: type[Record], columns: pa.Schema, rows: Sequence[Record]) -> pa.Table:
    table = pa.table({name: [getattr(row, name) for row in rows] for name in columns.names}, schema=columns)
    for field in columns:
        if not field.nullable and table[field.name].null_count:  # Parquet would turn a missing list into an empty one
            raise ValueError(f"Expected a {field.name} in every {record.__name__}, found None.")
    return table


def read_images(path: Path) -> Iterator[Image]:
    """The images of a table one after the other: their bytes are not in memory at once."""
    return _read_each(path, Image)


def read_findings(path: Path) -> Iterator[Finding]:
    """The findings of a table, as `read_images`."""
    return _read_each(path, Finding)


def _read_each(path: Path, record: type[Record]) -> Iterator[Record]:
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=BATCH):
            yield from (record(**row) for row in batch.to_pylist())


def read_table(path: Path, record: type[Record]) -> list[Record]:
    """Read a table that `write_table` wrote, in its order.

    Raises ValueError where its columns are not those of the record.
    """
    table = pq.read_table(path)
    if not table.schema.equals(schema(record)):
        found = ", ".join(map(str, table.schema))
        raise ValueError(f"Expected the columns of {record.__name__} in {path}, found {found}.")
    columns = [table.column(field.name).to_pylist() for field in fields(record)]
    for index, field in enumerate(fields(record)):
        if pa.types.is_list(table.schema.field(field.name).type):
            columns[index] = [tuple(value) for value in columns[index]]
    return [record(*values) for values in zip(*columns, strict=True)]
