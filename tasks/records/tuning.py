"""How a hospital uses its retrieved cases, as its held-out images decided."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

TUNING = "tuning.json"


class Tuning(BaseModel):
    """The document `tuning.json`; it stays at the hospital."""

    model_config = ConfigDict(frozen=True)

    k: int
    """Most cases shown with a question."""
    floor: float
    """Similarity below which a case is not shown."""
    weight: float
    """Weight of the retrieved answers' distribution in the mixture; 0 mixes nothing."""
    temperature: float
    """Of the mixture: an answer's share is the softmax of similarity / temperature."""
    cases: int
    """Held-out cases that decided."""
    loss: float | None
    """Their mean negative log-likelihood with this setting; None without held-out cases."""
    untuned: float | None
    """The same with the study's own setting, and nothing mixed."""


def read_tuning(folder: Path) -> Tuning:
    """Read the document of a folder of the stage `tuning`."""
    return Tuning.model_validate_json((folder / TUNING).read_text(encoding="utf-8"))
