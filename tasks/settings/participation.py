"""Settings of who takes part in the rounds of a federation."""

from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from tasks.settings.base import Settings


class ParticipationSettings(Settings):
    """Which hospitals each round asks, and how many of them have to answer."""

    fraction: float = Field(1, gt=0, le=1)
    """Share of the hospitals that each round asks, drawn anew for each; at least one is asked."""
    participants: int | None = Field(None, ge=1)
    """Number of hospitals that each round asks, in place of a share."""
    min_hospitals: int | None = Field(None, ge=1)
    """Fewest hospitals that have to answer for a round to go on; more than half of those asked where not given."""
    round_timeout_s: float | None = Field(None, gt=0)
    """Seconds after which a hospital on a machine of its own counts as one that did not answer; no limit by default."""
    joins: dict[str, PositiveInt] = Field({})
    """By hospital, the first round that it takes part in; those not named are there from the first."""
    leaves: dict[str, PositiveInt] = Field({})
    """By hospital, the last round that it takes part in; it keeps the adapter that it has then."""
    participation: Path | None = None
    """A finished run's `participation.json`, to ask just those that answered there, and so get the same bytes."""

    @model_validator(mode="after")
    def _a_share_or_a_number(self) -> Self:
        if self.participants is not None and self.fraction != 1:
            raise ValueError("expected fraction or participants, found both: a share of the hospitals, or their number")
        if self.participation and (self.participants is not None or self.fraction != 1):
            raise ValueError("expected neither fraction nor participants with participation, which says who takes part")
        gone = [name for name in self.joins if self.leaves.get(name, self.joins[name]) < self.joins[name]]
        if gone:
            raise ValueError(f"expected {gone[0]} to leave in no earlier round than it joins")
        return self
