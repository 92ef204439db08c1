"""Settings of what a run has to show before it is served in place of another."""

from pydantic import Field

from tasks.settings.base import Settings


class PromotionSettings(Settings):
    """The gates between a finished run and `artifacts/current`; a gate without a limit is open."""

    enabled: bool = False
    """Promote the run at its end if it passes every gate; else it is kept and not served."""
    not_worse: bool = True
    """Refuse a run that answers fewer test cases right than the current one, beyond the interval of the difference."""
    max_hospital_drop: float | None = Field(None, ge=0, le=1)
    """Most by which any hospital's share of right answers may fall below the current run's."""
    max_leakage: float | None = Field(None, ge=0, le=1)
    """Largest share of test cases whose image, a near-copy of it, or whose patient is in training."""
    min_reliance: float | None = Field(None, ge=0, le=1)
    """Smallest share of its score that the model has to lose with a blank image."""
    max_calibration_error: float | None = Field(None, ge=0, le=1)
    """Largest expected calibration error."""
    max_epsilon: float | None = Field(None, gt=0)
    """Largest epsilon of differential privacy; a run without noise does not pass."""
