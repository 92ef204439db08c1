"""The settings of a study: what the flow takes, what the dashboard shows, what cache keys are made of."""

from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tasks.settings.artifacts import ArtifactsSettings
from tasks.settings.base import Settings
from tasks.settings.data import AuditSettings, Dataset, DatasetSettings, PartitionSettings, SynthesisSettings
from tasks.settings.evaluation import AnsweringSettings, EvaluationSettings
from tasks.settings.participation import ParticipationSettings
from tasks.settings.privacy import PrivacySettings
from tasks.settings.promotion import PromotionSettings
from tasks.settings.retrieval import (
    ContextOrder,
    ContextSettings,
    EncoderSettings,
    FusionSettings,
    LibrarySettings,
    RetrievalSettings,
)
from tasks.settings.strategy import LocalSteps, StrategySettings
from tasks.settings.training import (
    EngineSettings,
    FederationSettings,
    Lesson,
    LocalRule,
    LoraSettings,
    ModelChoice,
    ModelSettings,
)

__all__ = [
    "AnsweringSettings",
    "AuditSettings",
    "ContextOrder",
    "ContextSettings",
    "Dataset",
    "DatasetSettings",
    "EncoderSettings",
    "EngineSettings",
    "EvaluationSettings",
    "FederationSettings",
    "FusionSettings",
    "Lesson",
    "LibrarySettings",
    "LocalRule",
    "LocalSteps",
    "LoraSettings",
    "ModelChoice",
    "ModelSettings",
    "ParticipationSettings",
    "PartitionSettings",
    "PrivacySettings",
    "RetrievalSettings",
    "Settings",
    "StrategySettings",
    "Study",
    "SynthesisSettings",
]


class Study(Settings):
    """One study: an experiment is settings, never a new script."""

    dataset: DatasetSettings = DatasetSettings()
    """Which published data the study runs on."""
    synthesis: SynthesisSettings = SynthesisSettings()
    """Questions made from captions, and multiple choice made open."""
    audit: AuditSettings = AuditSettings()
    """The negative control of the audit's near-duplicates."""
    partition: PartitionSettings = PartitionSettings()
    """Which hospital holds which images."""
    model: ModelSettings = ModelSettings()
    """The frozen base that all hospitals share."""
    lora: LoraSettings = LoraSettings()
    """The adapter that is trained."""
    federation: FederationSettings = FederationSettings()
    """Local training and its rounds."""
    engine: EngineSettings = EngineSettings()
    """How the base is used to train the hospitals of a round."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """The similar past cases that a hospital shows the model."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How the test cases are answered."""
    promotion: PromotionSettings = PromotionSettings()
    """What the run has to show to be served."""
    artifacts: ArtifactsSettings = ArtifactsSettings()
    """What the study leaves on disk."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Every random choice of the study follows from it."""

    @field_validator("retrieval")
    @classmethod
    def _pools_further(cls, retrieval: RetrievalSettings, info: ValidationInfo) -> RetrievalSettings:
        model, tokens = info.data.get("model"), retrieval.image_tokens
        if tokens and model and model.image_tokens and tokens > model.image_tokens:
            raise ValueError(
                f"expected image_tokens to be at most those of the question's image, found {tokens} and "
                f"model.image_tokens {model.image_tokens}"
            )
        return retrieval

    @field_validator("engine")
    @classmethod
    def _can_be_stacked(cls, engine: EngineSettings, info: ValidationInfo) -> EngineSettings:
        lora = info.data.get("lora")
        if engine.executor == "batched" and lora and lora.projector:
            raise ValueError("expected executor mapped, since lora.projector learns, which is not done in one pass")
        if engine.executor == "batched" and lora and lora.tower_targets:
            raise ValueError("expected executor mapped, since lora.tower_targets learn, which is not done in one pass")
        return engine

    @field_validator("federation")
    @classmethod
    def _can_keep_a_residual(cls, federation: FederationSettings, info: ValidationInfo) -> FederationSettings:
        lora, rule = info.data.get("lora"), federation.lora_mean
        if rule in ("stacked", "residual") and lora and lora.tower_targets:
            raise ValueError(f"expected no lora.tower_targets with lora_mean {rule}: its residual is of text layers")
        if federation.personal == "mixture" and lora and (lora.tower_targets or lora.projector):
            raise ValueError("expected neither lora.tower_targets nor lora.projector with personal mixture")
        return federation

    @model_validator(mode="after")
    def _can_be_summed_in_secret(self) -> Self:
        here = self.federation.runtime == "local"  # elsewhere, a hospital's own part of a study is of one hospital
        if self.federation.secure_aggregation and here and self.partition.hospitals < 2:
            raise ValueError("expected at least 2 partition.hospitals with federation.secure_aggregation")
        if self.federation.secure_aggregation and self.retrieval.fusion == "gated":
            raise ValueError("expected retrieval.fusion concat, since updates of a gated fusion are not masked")
        return self

    @model_validator(mode="after")
    def _can_have_ranks(self) -> Self:
        """What mixes components, or is added to all of them, would fill those that a hospital does not train."""
        federation = self.federation
        if not self.lora.ranks:
            return self
        others = {
            "strategy": federation.strategy in ("scaffold", "none"),
            "lora_mean": federation.lora_mean in ("share-a", "rotate"),
            "personal": federation.personal != "none",
            "privacy.unit": federation.privacy.unit in ("example", "patient"),
            "secure_aggregation": federation.secure_aggregation,
        }
        if refused := [name for name, found in others.items() if found]:
            raise ValueError(f"expected another federation.{refused[0]} with lora.ranks")
        return self

    @model_validator(mode="after")
    def _can_be_private(self) -> Self:
        unit, strategy = self.federation.privacy.unit, self.federation.strategy
        if (unit == "hospital") != (strategy == "dpfedavg"):
            raise ValueError("expected federation.privacy.unit hospital and federation.strategy dpfedavg together")
        if unit != "none" and self.federation.warm_start != "off":
            raise ValueError(
                f"expected federation.warm_start off with privacy.unit {unit}, since epsilon is of one run's training"
            )
        if unit != "none" and self.artifacts.root:
            raise ValueError(
                f"expected no artifacts.root with federation.privacy.unit {unit}: keys of noise stay on one machine"
            )
        if unit != "none" and self.retrieval.fusion == "gated":
            raise ValueError("expected retrieval.fusion concat, since a gated fusion is trained without noise")
        if unit in ("example", "patient") and self.retrieval.most:
            raise ValueError(
                f"expected retrieval.k 0 with federation.privacy.unit {unit}, since a retrieved case is in the prompts "
                "of others, where noise does not hide it"
            )
        if unit in ("example", "patient") and (strategy == "scaffold" or self.federation.lora_mean != "factors"):
            raise ValueError(
                f"expected another federation.strategy than scaffold, and lora_mean factors, with privacy.unit {unit}"
            )
        if unit in ("example", "patient") and self.engine.executor == "batched":
            raise ValueError(f"expected engine.executor mapped with federation.privacy.unit {unit}")
        return self

    @model_validator(mode="after")
    def _can_train_by_image(self) -> Self:
        for name, found, one_by_one in (
            ("engine.executor mapped", self.engine.executor, self.engine.executor == "batched"),
            (
                "federation.privacy.unit none",
                self.federation.privacy.unit,
                self.federation.privacy.unit in ("example", "patient"),
            ),
        ):
            if self.federation.by_image and one_by_one:
                raise ValueError(
                    f"expected {name} with federation.by_image, found {found}: there, each case stands alone"
                )
        if self.federation.holdout_seed is not None and self.retrieval.fusion == "gated":
            raise ValueError(
                "expected retrieval.fusion concat with federation.holdout_seed, since a fusion holds out its own"
            )
        return self

    @model_validator(mode="after")
    def _can_travel(self) -> Self:
        if self.federation.runtime == "local":
            return self
        for name, found, travels in (
            ("federation.strategy", self.federation.strategy, self.federation.strategy != "none"),
            ("federation.warm_start", self.federation.warm_start, self.federation.warm_start == "off"),
            ("retrieval.fusion", self.retrieval.fusion, self.retrieval.fusion != "gated"),
            ("engine.executor", self.engine.executor, self.engine.executor == "mapped"),
            ("engine.runner", self.engine.runner, self.engine.runner == "thread"),
            ("artifacts.root", self.artifacts.root, self.artifacts.root is None),
        ):
            if not travels:
                raise ValueError(f"expected another {name} with federation.runtime flower, which is not sent: {found}")
        return self

    @model_validator(mode="after")
    def _can_count_what_was_summed(self) -> Self:
        """A hospital elsewhere is told in which rounds its control variate moved the server's: of sums nobody knows."""
        federation = self.federation
        if federation.runtime == "flower" and federation.strategy == "scaffold" and federation.secure_aggregation:
            raise ValueError("expected another federation.strategy than scaffold with runtime flower and secure sums")
        return self

    @property
    def configuration(self) -> str:
        """What the study is called beside others: `fed`, `centralised` or `local`, and `+rag` where it retrieves."""
        alone = "local" if self.federation.strategy == "none" else "fed"
        return (alone if self.partition.hospitals > 1 else "centralised") + ("+rag" if self.retrieval.k else "")

    @property
    def personal_configuration(self) -> str:
        """What the study is called with each hospital's personal adapter."""
        return f"{self.configuration}+personal"
