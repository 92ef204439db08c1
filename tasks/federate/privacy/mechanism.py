"""What a training with noise does at each step; what plans and accounts for it needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mechanism:
    """What a step does to its gradient, as the accountant is told."""

    rate: float
    """The chance of each unit to be in a step, independent of all others."""
    steps: int
    clip: float
    """The largest norm of a unit's gradient."""
    sigma: float
    """Noise multiplier: standard deviation of the noise in the sum of gradients, over `clip`."""
