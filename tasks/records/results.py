"""What stages make of cases: neighbours, updates, answers and how they were judged, where they come from, losses."""

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
    lightfed_differs: bool = False
    """Whether that published rule's verdict is another than `correct`, and so of the two below."""
    llava_med_differs: bool = False
    llava_med_released_differs: bool = False


@dataclass(frozen=True, slots=True)
class ImageSums:
    """Sums over the questions of one image that one configuration answered: what a hospital shares, without any id.

    Rows are sorted by their figures, so that their order tells nothing either. Rows of `all` are of every question, the
    others of the questions of one value of a group; nothing tells which rows of two groups are about one image.
    """

    configuration: str
    group: str
    """`all`, `dataset`, `modality`, `organ` or `topic`."""
    value: str | None
    """Of the group, in the words of `tasks.text.vocabulary`; None of `all`."""
    n: int
    """Number of questions."""
    correct: float
    """Those answered rightly, by our own rule."""
    closed: int | None
    """Number of closed questions; None, as all below that is of one kind, where it is withheld."""
    closed_accuracy: float | None
    """As all that follows the sum, over the questions that it is of, of the measure of this name (docs/scoring.md)."""
    open: int | None
    open_exact_match: float | None
    open_f1: float | None
    """None, as all below, but for `all`."""
    open_bleu: float | None
    open_rouge_l: float | None
    open_token_recall: float | None
    lightfed_accuracy: float | None
    lightfed_bleu: float | None
    lightfed_rouge_l: float | None
    llava_med_closed: float | None
    llava_med_open: float | None
    right_yes: int | None
    """Closed questions whose right label is `yes` (and so on) that were answered rightly; None, as the rest, where
    labels are withheld."""
    right_no: int | None
    right_another: int | None
    gold_yes: int | None
    """Closed questions whose right label is `yes`."""
    gold_no: int | None
    gold_another: int | None
    said_yes: int | None
    """Closed questions to which the answer is `yes`."""
    said_no: int | None
    said_another: int | None


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
