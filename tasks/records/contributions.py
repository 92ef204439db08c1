"""What each hospital brought to a round: `contributions.json` and its table."""

from dataclasses import dataclass

from tasks.records.shared_documents import SharedDocument


@dataclass(frozen=True, slots=True)
class Contribution:
    """One hospital's part of what a round gained, in held-out loss per answer token over all hospitals.

    Gains are counted from the loss before the round; a negative one made the loss larger.
    """

    hospital: str
    samples: int
    """Training cases that it counted with."""
    shapley: float
    """Its Shapley value: all of these add up to the round's whole gain."""
    standard_error: float | None
    """Of the Shapley value, by the orders that were drawn; None where all orders are counted."""
    leave_one_out: float
    """What the others' aggregate gains less than that of all."""
    alone: float
    """What its own update gains without the others."""


class CoalitionsDocument(SharedDocument):
    """`coalitions.json`: what one hospital measures of each coalition's aggregate."""

    hospital: str
    round: int
    tokens: int
    """Held-out answer tokens; 0 if their number is withheld."""
    samples: dict[str, int]
    """By hospital whose update was used, the training cases that it counted with."""
    left_out: dict[str, str]
    coalitions: list[list[str]]
    """The hospitals of each; the first is of none, the adapter before the round."""
    losses: list[float]
    """Mean loss per answer token on held-out training cases, by coalition."""


class ContributionRow(SharedDocument):
    """A `Contribution` in JSON."""

    hospital: str
    samples: int
    shapley: float
    standard_error: float | None
    leave_one_out: float
    alone: float


class ContributionsDocument(SharedDocument):
    """`contributions.json`."""

    round: int
    loss_before: float
    """Held-out loss per answer token of the adapter before the round."""
    loss_after: float
    """The same after it, of all updates together."""
    tokens: int
    """Held-out answer tokens that losses are the means of."""
    orders: int
    """Orders in which hospitals join, that Shapley values are the means over."""
    exact: bool
    """Whether these are all orders."""
    hospitals: list[ContributionRow]
    left_out: dict[str, str]
    """Hospitals that the round's door turned away, with the reason: they brought nothing."""
