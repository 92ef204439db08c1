"""Settings of what is trained: the base, the adapter, the rounds, and the lessons that a base had before."""

from math import isqrt
from typing import Literal, Self

from pydantic import Field, field_validator

from tasks.settings.base import Settings
from tasks.settings.privacy import PrivacySettings


class ModelSettings(Settings):
    """The frozen base that all hospitals share."""

    name: str = "embedded"
    """`embedded`, a preset such as qwen2-vl-2b (docs/models.md), a local Hugging Face folder, or a hub id."""
    revision: str | None = None
    """Hub revision (branch, tag or commit)."""
    max_pixels: int | None = Field(None, ge=784)
    """Upper bound on an image's pixels after resizing; the processor's own where not given."""
    image_tokens: int | None = Field(None, ge=1)
    """Tokens of each image, pooled from the tower's square map: 16, 9 or 4 of smol-clip's 49; all where not given."""
    gradient_checkpointing: bool = False
    """While training, keep each layer's input alone and compute the rest again: less memory, about a third slower."""
    quantisation: Literal["none", "nf4"] = "none"
    """`nf4` keeps the text model's linear layers in 4 bits (needs `pip install .[cuda]`); the tower stays as it is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the base's weights and of what it computes: `auto` is bfloat16 on CUDA and float32 on the CPU. bfloat16
    halves the memory, and is faster on CPUs that compute in it (AVX512-BF16, AMX) but slower on others."""

    @field_validator("image_tokens")
    @classmethod
    def _square(cls, tokens: int | None) -> int | None:
        if tokens is not None and isqrt(tokens) ** 2 != tokens:
            raise ValueError(f"image_tokens must be a square number, as 4, 9 or 16, found {tokens}")
        return tokens

    @property
    def seeing(self) -> Self:
        """What an image's features follow from, so that studies that differ in the others share them.

        The tower is never quantised, but the model that it is loaded with must fit the memory as it does elsewhere.
        """
        return self.model_copy(update={"gradient_checkpointing": False})


class ModelChoice(ModelSettings):
    """The base as it is on this machine: what a stage that loads it takes, so that its key holds the model itself."""

    device: Literal["cpu", "cuda"]
    """Where it runs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of its weights."""
    content: str
    """What tells its files apart from others at the same place: their digest, or the commit that the hub gave."""


class LoraSettings(Settings):
    """The adapter that is trained: PEFT LoRA on the text model and the tower, and the projector where it learns too."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """Scaling numerator: an update is scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapter's input while training."""
    targets: tuple[str, ...] = Field(("q_proj", "v_proj"), min_length=1)
    """Names of the text model's linear layers that get an adapter."""
    tower_targets: tuple[str, ...] = ()
    """Names of the vision tower's linear layers that get an adapter; features are then computed at each step."""
    projector: bool = False
    """Train all weights of the projector, which brings what the vision tower sees to the text model, with the LoRA."""


class LocalRule(Settings):
    """How a strategy changes what hospitals do between two rounds."""

    proximal_mu: float = Field(0, ge=0)
    """Weight of the pull towards the adapter that the round began with (FedProx)."""


class StrategySettings(Settings):
    """How hospitals' updates become the next round's adapter."""

    aggregation: Literal["fedavg", "fedavgm", "fedprox", "dpfedavg", "none"] = "fedavg"
    """The strategy; with `none` each hospital goes on from its own adapter, alone."""
    server_momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the last round's step that the server adds to the next one (`fedavgm` alone)."""
    proximal_mu: float = Field(0.01, gt=0)
    """Weight of the pull towards the adapter that a round begins with, in local training (`fedprox` alone)."""
    privacy: PrivacySettings = PrivacySettings()
    """Differential privacy of what is learned."""


class FederationSettings(StrategySettings):
    """Local training, its rounds, and the strategy that joins them."""

    rounds: int = Field(4, ge=1)
    """Rounds of local training and averaging."""
    local_epochs: int = Field(1, ge=1)
    """Passes over a hospital's training cases in each round."""
    batch_size: int = Field(16, ge=1)
    """Cases in one optimiser step."""
    tokens_per_pass: int = Field(8192, ge=1)
    """Most tokens that pass the model at once; a step of more is split and its gradients are added up."""
    learning_rate: float = Field(3e-3, gt=0)
    """AdamW learning rate; LightFED used 2e-5 for the 2B model."""
    holdout: float = Field(0.1, ge=0, lt=1)
    """Share of a hospital's training images kept out of training, for the evaluation loss of each round."""
    secure_aggregation: bool = False
    """Whether the server learns the sum of the hospitals' updates alone, and no single one (docs/privacy.md)."""

    @property
    def strategy(self) -> StrategySettings:
        """What the server computes with."""
        return StrategySettings(**self.model_dump(include=set(StrategySettings.model_fields)))

    @property
    def local(self) -> "FederationSettings":
        """What matters within one round, so that studies that differ in the others share what hospitals trained."""
        return self.model_copy(update=dict(StrategySettings()) | {"rounds": 1, "secure_aggregation": False})


class EngineSettings(Settings):
    """How the one base in memory is used; without dropout, what is learned does not depend on it."""

    executor: Literal["mapped", "batched"] = "mapped"
    """Hospitals of a round train one after the other (`mapped`), or all in one pass over the base (`batched`)."""


class Lesson(Settings):
    """One part of the training of a base's text model."""

    title: str
    """What the lesson is called in progress bars and in the dashboard."""
    kind: Literal["closed", "open"] | None = None
    """Only questions of this kind; all where not given."""
    naming: tuple[str, ...] = ()
    """Only questions that hold one of these words; all where not given."""
    others: float = Field(0, ge=0, le=1)
    """Share of the questions without those words that are asked all the same."""
    share: float = Field(1, gt=0, le=1)
    """Share of the images whose questions are asked."""
    shown: int = Field(0, ge=0)
    """Most retrieved cases in a prompt: each question gets a random number of them, from 0 to this."""
    renamed: float = Field(0, ge=0, le=1)
    """Share of the prompts in which findings get other names, where the retrieved cases tell what those mean."""
    epochs: int = Field(1, ge=1)
    """Passes over the questions."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak AdamW learning rate; it falls along a cosine."""
