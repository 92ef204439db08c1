"""Records that stages make from cases: neighbours, updates, answers, judgements, attributions, losses."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.records.data import Kind


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
class UpdateCounts:
    """What a hospital sends to the coordinator after one round, besides its adapter tensors."""

    hospital: str
    round: int
    samples: int
    """Training cases in one epoch: the weight in FedAvg."""
    loss: float
    """Mean training loss per answer token."""
    steps: int
    base: str
    """Content of the base that it trained on, as in `ModelChoice`; empty for the gated fusion, which has none."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of one configuration or baseline to one test case."""

    configuration: str
    """Such as `fed+rag`, `base` or `majority`."""
    case_id: str
    hospital: str
    kind: Kind
    question: str
    reference: str
    prediction: str
    neighbours: tuple[str, ...]
    """Ids of the cases shown in the prompt, nearest first."""
    options: tuple[str, ...] = ()
    """The case's options, to choose the answer from."""
    confidence: float | None = None
    """Mean probability of the generated tokens; None if no model answered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The judgement of one configuration's or baseline's answer to one test case; stays at the hospital.

    Case and image numbers are derived only from their ids, so they are the same in every configuration and for every
    partition of images to hospitals. Ids can be guessed from such numbers, so outcomes are never shared.
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
    training_image: str | None
    """`alike` if the image has a copy (near-duplicates count) among the training images, else `none alike`; None if no
    copies were looked for."""
    correct: float
    """1 or 0, by our rule; for an open question, the exact match."""
    gold: int | None
    """The correct label of a closed question, as an index into `tasks.score.labels.LABELS`; None for an open
    question."""
    predicted: int | None
    """The label of the answer; equals `gold` if the answer is correct."""
    scores: Mapping[str, float]
    """By field of a metric (`tasks.score.metrics`), for open and closed questions, from 0 to 1."""
    confidence: float | None
    """Mean probability of the answer's tokens; None for baselines without a model."""


@dataclass(frozen=True, slots=True)
class Saliency:
    """An attribution map: how much each region of one image in a case's prompt contributes to the answer."""

    case_id: str
    method: str
    """`attention`, `rollout`, `relevance` or `occlusion`."""
    token: int | None
    """Index of the answer's token, from 0; None for the whole answer."""
    layer: int | None
    """Layer of the text model, from 0, for `attention` only; None for all layers together."""
    head: int | None
    """Head of that layer, from 0; None for all heads together."""
    image_id: str
    rank: int | None
    """Rank of the retrieved case with this image, 0 the nearest; None for the question's image."""
    rows: int
    columns: int
    weights: tuple[float, ...]
    """Weights of the regions, row by row, as shares of the whole prompt's weight. For `occlusion`, the fall of the
    answer's log-probability in nats when the region is covered; negative if that makes the answer likelier."""
    window: tuple[float, ...]
    """The area that the grid covers: left, upper, right and lower edge, in pixels of the image."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one part of a case's prompt in the answer's whole attribution, by one method."""

    case_id: str
    method: str
    token: int | None
    """As in `Saliency`; so are `layer` and `head`."""
    layer: int | None
    head: int | None
    part: str
    """`query_image`, `retrieved_images`, `retrieved_text`, `question` or `format` (the prompt's fixed tokens)."""
    share: float
    """From 0 to 1; the shares of all parts sum to 1, or are all 0 if nothing had any weight."""


@dataclass(frozen=True, slots=True)
class FailureModes:
    """The failure modes of the answer to one test case, decided by rules; stays at the hospital.

    The names are `ignores_image`, `copies_neighbour`, `attends_to_border`, `attends_to_burned_in_text`,
    `diffuse_attention`, `right_for_wrong_region` and `says_yes_to_everything` (`tasks.records.explanations.MEANINGS`).
    """

    case_id: str
    modes: tuple[str, ...]
    """The modes found; empty if the answer was examined and shows no failure."""
    inapplicable: tuple[str, ...]
    """The modes whose rule does not apply to this answer."""


@dataclass(frozen=True, slots=True)
class EpochLoss:
    """The losses of one epoch of a training stage, or of one round of a federation."""

    stage: str
    """The stage's title; `federation` for rounds."""
    epoch: int
    """The epoch or round, from 1."""
    train_loss: float
    """Mean loss per answer token during the epoch, in nats."""
    held_out_loss: float | None
    """Mean loss per answer token after the epoch, on held-out training images; None if there are none."""
    kept: bool
    """Whether the weights after this epoch are the ones kept."""
