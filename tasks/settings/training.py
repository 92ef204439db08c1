"""Settings of what is trained: the base, the adapter, the rounds, and the lessons that a base had before."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from tasks.settings.base import Settings, square
from tasks.settings.participation import ParticipationSettings
from tasks.settings.strategy import LocalSteps, StrategySettings


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
        return square(tokens, "image_tokens")

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
    ranks: dict[str, PositiveInt] = Field({})
    """By hospital, a rank below `r` that it trains and sends; those not named train all of it."""

    @field_validator("ranks")
    @classmethod
    def _below_the_rank(cls, ranks: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        for hospital, rank in ranks.items():
            if rank > info.data.get("r", rank):
                raise ValueError(f"expected ranks of at most r, {info.data['r']}, found {rank} of {hospital}")
        return ranks


class LocalRule(Settings):
    """How a strategy changes what hospitals do between two rounds."""

    proximal_mu: float = Field(0, ge=0)
    """Weight of the pull towards the adapter that the round began with (FedProx)."""
    control: bool = False
    """Correct gradients by control variates, and return how the hospital's own has changed (SCAFFOLD)."""
    frozen: Literal["A", "B"] | None = None
    """The factor of LoRA that is neither trained nor sent; both are where not given."""
    rank: int | None = None
    """How many components of the adapter are trained and sent, the first ones; all where not given."""


class PersonalSettings(Settings):
    """Adapters of each hospital's own, beside the one for all."""

    personal: Literal["none", "fine-tune", "ditto", "mixture", "fedper"] = "none"
    """A second adapter for each hospital, which stays there: the last round's, trained on (`fine-tune`), one that is
    trained in each round and pulled to the round's adapter (`ditto`), one that is trained alone and mixed with the last
    round's (`mixture`), by a weight chosen on the hospital's held-out cases, or the round's with layers of the
    hospital's own (`fedper`)."""
    personal_epochs: int = Field(1, ge=1)
    """Passes over a hospital's training cases after the last round (`fine-tune` alone)."""
    personal_pull: float = Field(0.1, ge=0)
    """Weight of the pull towards the adapter for all (`ditto` alone); 0 is training alone."""

    @field_validator("personal")
    @classmethod
    def _can_be_personal(cls, personal: str, info: ValidationInfo) -> str:
        strategy, rule = info.data.get("strategy"), info.data.get("lora_mean")
        if personal != "none" and strategy == "none":
            raise ValueError(f"expected personal none with strategy none, whose adapters are personal: {personal}")
        if personal == "ditto" and rule in UNLIKE_BASES:
            raise ValueError(
                f"expected personal fine-tune with lora_mean {rule}, whose factors ditto cannot be near to"
            )
        layers = info.data.get("personal_layers")
        if (personal == "fedper") != bool(layers):
            raise ValueError(f"expected personal_layers with personal fedper and no other, found {personal}: {layers}")
        if personal == "fedper" and (strategy == "scaffold" or rule == "share-a"):
            raise ValueError(
                "expected another strategy than scaffold and another lora_mean than share-a with personal fedper, "
                f"found {strategy} and {rule}"
            )
        return personal


UNLIKE_BASES = ("product", "stacked", "share-a", "residual", "svd-b")
"""Rules after which an adapter is more than its factors, or has factors of another basis in each round."""


class FederationSettings(ParticipationSettings, PersonalSettings, StrategySettings):
    """Local training, its rounds, who takes part, and the strategy that joins them."""

    rounds: int = Field(4, ge=1)
    """Rounds of local training and averaging."""
    local_epochs: int = Field(1, ge=1)
    """Passes over a hospital's training cases in each round."""
    batch_size: int = Field(16, ge=1)
    """Cases in one optimiser step."""
    by_image: bool = False
    """A step takes images with all their questions, at least `batch_size` cases, instead of single cases. What their
    prompts begin with alike, the image above all, is then computed once: faster, and exact."""
    tokens_per_pass: int = Field(8192, ge=1)
    """Most tokens that pass the model at once; a step of more is split and its gradients are added up."""
    learning_rate: float = Field(3e-3, gt=0)
    """AdamW learning rate; LightFED used 2e-5 for the 2B model."""
    holdout: float = Field(0.1, ge=0, lt=1)
    """Share of a hospital's training images kept out of training, for the evaluation loss of each round."""
    holdout_seed: int | None = Field(None, ge=0)
    """Seed by which these images are drawn, instead of the study's. With 0 they are among those that the base radiology
    has not learned."""
    secure_aggregation: bool = False
    """Whether the server learns the sum of the hospitals' updates alone, and no single one (docs/privacy.md)."""
    compare_images: bool = False
    """Whether hospitals on machines of their own find out which of their test images others train on, by digests that
    the coordinator cannot search (docs/deployment.md)."""
    runtime: Literal["local", "flower"] = "local"
    """Where hospitals are: in this process (`local`), or on machines of their own (`flower`, docs/deployment.md)."""
    warm_start: Literal["off", "latest", "current"] = "off"
    """Where a hospital has new cases, go on from the adapter of the run that this link leads to (docs/operating.md)."""
    initial_adapter: Path | None = None
    """Folder of a PEFT adapter to start from, of the same model and `lora` settings; a fresh one where not given."""

    def held_out_by(self, seed: int) -> int:
        """The seed by which held-out images are drawn in a study of this seed."""
        return seed if self.holdout_seed is None else self.holdout_seed

    @property
    def server(self) -> StrategySettings:
        """What the server computes with."""
        return StrategySettings(**self.model_dump(include=set(StrategySettings.model_fields)))

    @property
    def asked_steps(self) -> LocalSteps | None:
        """What decides the steps of hospitals; None where they are drawn at random, for differential privacy."""
        if self.privacy.unit != "none":
            return None
        return LocalSteps(epochs=self.local_epochs, batch_size=self.batch_size, by_image=self.by_image)

    @property
    def participating(self) -> ParticipationSettings:
        """Who takes part in which round."""
        return ParticipationSettings(**self.model_dump(include=set(ParticipationSettings.model_fields)))

    @property
    def personalising(self) -> PersonalSettings:
        """What personal adapters there are."""
        return PersonalSettings.model_construct(**self.model_dump(include=set(PersonalSettings.model_fields)))

    @property
    def local(self) -> "FederationSettings":
        """What matters within one round, so that studies that differ in the others share what hospitals trained."""
        elsewhere = dict(StrategySettings()) | dict(PersonalSettings()) | dict(ParticipationSettings())
        here = {"rounds": 1, "secure_aggregation": False, "compare_images": False, "runtime": "local"}
        here |= {"warm_start": "off"}
        return self.model_copy(update=elsewhere | here | {"initial_adapter": None})


class EngineSettings(Settings):
    """How the one base in memory is used; without dropout, what is learned does not depend on it."""

    executor: Literal["mapped", "batched"] = "mapped"
    """Hospitals of a round train one after the other (`mapped`), or all in one pass over the base (`batched`)."""
    runner: Literal["thread", "dask", "ray"] = "thread"
    """Where hospitals' work runs: in this process, or on the workers of a Dask or Ray cluster (docs/cluster.md)."""
    cluster: str | None = None
    """Address of a running cluster, such as tcp://10.0.0.7:8786 (Dask) or ray://10.0.0.7:10001 (Ray); where not given,
    one is started here."""
    workers: int = Field(2, ge=1)
    """Worker processes, each with a base in memory, of a cluster that is started here, or of any Ray cluster."""
    checkpoint_minutes: float | None = Field(10, ge=0)
    """Minutes between checkpoints of a training, from which it goes on after a kill; 0 is after each step, and where
    not given there are none."""

    @field_validator("runner")
    @classmethod
    def _sends_hospitals(cls, runner: str, info: ValidationInfo) -> str:
        if runner != "thread" and info.data.get("executor") == "batched":
            raise ValueError(f"expected executor mapped with runner {runner}, since batched trains all in one process")
        return runner

    @field_validator("cluster")
    @classmethod
    def _has_a_runner(cls, cluster: str | None, info: ValidationInfo) -> str | None:
        if cluster and info.data.get("runner") == "thread":
            raise ValueError(f"expected runner dask or ray with cluster {cluster}, found thread")
        return cluster


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
