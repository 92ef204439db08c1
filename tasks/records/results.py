"""What stages make of cases: neighbours, updates, answers and how they were judged, where they come from, losses."""

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
    """How one configuration's or baseline's answer to one test case was judged: a hospital's own, never shared.

    Case and image have numbers that follow from their ids alone, and so are the same in every configuration and however
    images are dealt to hospitals. Ids can be guessed from such numbers, which is why they stay.
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
    """The label that was right, of a closed question, by its place in `tasks.score.labels.LABELS`; None for an open
    one."""
    predicted: int | None
    """The label that was given; equals `gold` where the answer is right."""
    scores: Mapping[str, float]
    """By field of a metric (`tasks.score.metrics`), of open and closed questions alike, from 0 to 1."""
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
    `diffuse_attention`, `right_for_wrong_region` and `says_yes_to_everything` (`tasks.explain.failures.MEANINGS`).
    """

    case_id: str
    modes: tuple[str, ...]
    """Those that were found; none where the answer was examined and shows no failure."""
    inapplicable: tuple[str, ...]
    """Those whose rule says nothing of this answer."""


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
