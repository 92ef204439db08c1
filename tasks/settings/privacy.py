"""Settings of differential privacy."""

from typing import Literal

from pydantic import Field

from tasks.settings.base import Settings

Unit = Literal["none", "example", "patient", "hospital"]


class PrivacySettings(Settings):
    """Whose presence noise hides, and how well."""

    unit: Unit = "none"
    """What is hidden: one training case (`example`), all cases of a patient, a whole `hospital`, or nothing."""
    epsilon: float = Field(8, gt=0)
    """Training stops before this is exceeded (docs/privacy.md says what it means)."""
    delta: float = Field(1e-5, gt=0, lt=1)
    """Chance that epsilon does not hold; well below 1 over the number of units."""
    clip: float = Field(1, gt=0)
    """Largest norm of a unit's gradient, of a hospital's update where that is the unit; a larger one is scaled down."""
    sigma: float | None = Field(None, gt=0)
    """Noise multiplier, standard deviation over `clip`; by default the smallest that lets all rounds end in time."""
    accountant: Literal["pld", "rdp"] = "pld"
    """How epsilon is computed: by privacy loss distributions, or by Renyi divergences, which is faster and looser."""
