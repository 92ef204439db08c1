"""The settings of a recipe: the stages in which a base is trained on public data before a federation."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from tasks.settings import DatasetSettings, ModelSettings, Settings, SynthesisSettings

Side = Literal["tower", "projector", "text"]


class Stage(Settings):
    """One part of a recipe: what is asked, which sides of the model learn, and for how long."""

    title: str = Field(min_length=1)
    """What the stage is called in tables, plots and the dashboard."""
    dataset: DatasetSettings | None = None
    """Whose training cases are asked; with their questions, those of the stage before where not given."""
    synthesis: SynthesisSettings = SynthesisSettings()
    """Questions made from captions, and multiple choice made open."""
    sides: tuple[Side, ...] = Field(("text",), min_length=1)
    """What learns: `tower` and `text` through LoRA, `projector` in all its weights; the rest is frozen."""
    r: int = Field(16, ge=1)
    """LoRA's rank, on both sides."""
    alpha: int = Field(32, ge=1)
    """LoRA's scaling numerator."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on LoRA's input while training."""
    tower_targets: tuple[str, ...] = Field((), validate_default=True)
    """Names of the vision tower's linear layers that get LoRA; families name them differently."""
    text_targets: tuple[str, ...] = Field(("q_proj", "v_proj"), validate_default=True)
    """Names of the text model's linear layers that get LoRA."""
    epochs: int = Field(5, ge=1)
    """Most passes over the training cases."""
    patience: int = Field(2, ge=1)
    """Stop after so many epochs without a lower held-out loss; the weights of the lowest are kept in any case."""
    holdout: float = Field(0.1, gt=0, lt=1)
    """Share of the training images whose cases are held out, for the loss that decides."""
    batch_size: int = Field(16, ge=1)
    """Cases in one optimiser step."""
    tokens_per_pass: int = Field(8192, ge=1)
    """Most tokens that pass the model at once; a step of more is split and its gradients are added up."""
    learning_rate: float = Field(1e-5, gt=0)
    """AdamW learning rate, constant."""

    @field_validator("sides")
    @classmethod
    def _each_once(cls, sides: tuple[Side, ...]) -> tuple[Side, ...]:
        if len(set(sides)) < len(sides):
            raise ValueError("expected each side once")
        return sides

    @field_validator("tower_targets", "text_targets")
    @classmethod
    def _named_where_needed(cls, targets: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        side = str(info.field_name).removesuffix("_targets")
        if side in info.data.get("sides", ()) and not targets:
            raise ValueError(f"expected the names of linear layers, as {side} is among the sides")
        return targets

    @field_validator("synthesis")
    @classmethod
    def _beside_its_dataset(cls, synthesis: SynthesisSettings, info: ValidationInfo) -> SynthesisSettings:
        if info.data.get("dataset", synthesis) is None and synthesis != SynthesisSettings():
            raise ValueError("expected a dataset beside it, since without one both are those of the stage before")
        return synthesis

    @property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """The linear layers that get LoRA, by side."""
        named = {"tower": self.tower_targets, "text": self.text_targets}
        return {side: names for side, names in named.items() if side in self.sides}


class Recipe(Settings):
    """How a base is trained in stages; each begins with what the one before it left."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    """What the recipe's folder and its entries in the dashboard are called: small letters, digits, hyphens."""
    model: ModelSettings = ModelSettings()
    """The base that the first stage begins with."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """The stages, in their order."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Every random choice follows from it."""
    checkpoint_minutes: float | None = Field(10, ge=0)
    """Minutes between checkpoints of a stage, from which it goes on after a kill; 0 is after each step, and where not
    given there are none."""

    @field_validator("model")
    @classmethod
    def _can_be_merged(cls, model: ModelSettings) -> ModelSettings:
        if model.quantisation != "none":
            raise ValueError("expected quantisation none, since what is learned is added to the weights themselves")
        return model

    @field_validator("stages")
    @classmethod
    def _valid_stages(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if stages[0].dataset is None:
            raise ValueError("expected a dataset in the first stage")
        if len({stage.title for stage in stages}) < len(stages):
            raise ValueError("expected a title of its own for each stage")
        return stages

    def questions(self, number: int) -> tuple[DatasetSettings, SynthesisSettings]:
        """Where the cases of a stage (0 is the first) come from: its own settings, or those of one before it."""
        return next((stage.dataset, stage.synthesis) for stage in reversed(self.stages[: number + 1]) if stage.dataset)
