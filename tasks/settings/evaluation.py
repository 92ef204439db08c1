"""Settings of the answers to the test cases."""

from pydantic import Field

from tasks.settings.base import Settings


class AnsweringSettings(Settings):
    """How questions are answered."""

    tokens_per_pass: int = Field(8192, ge=1)
    """Most tokens, prompts and answers, that the model holds at once."""
    max_new_tokens: int = Field(32, ge=1)
    """Longest answer, in tokens."""


class EvaluationSettings(AnsweringSettings):
    """How the test cases are answered."""

    coverage: float = Field(1, gt=0, le=1)
    """Share of a new image's questions to be answered, on average over images; below 1, the answers that the model is
    least sure of are withheld. Calibrated on the images that federation.holdout leaves out."""
    min_cell: int = Field(5, ge=1)
    """Fewest cases of which a hospital tells anything: counts and scores of fewer are withheld; 1 withholds none."""
    reliance: int = Field(60, ge=0)
    """Test cases of each hospital that are asked again with images, neighbours or words altered; 0 leaves it out."""
    examined: int = Field(20, ge=0)
    """Of these, the test cases of each hospital whose answers are searched for failure modes; 0 leaves it out."""
    saliency: int = Field(5, ge=0)
    """Test cases of each hospital whose answers are explained by maps and shares; 0 leaves it out."""

    @property
    def answering(self) -> AnsweringSettings:
        """The part that the answers follow from."""
        return AnsweringSettings(**{name: getattr(self, name) for name in AnsweringSettings.model_fields})
