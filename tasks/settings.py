"""The settings of a study: what the flow takes, what the dashboard shows, what cache keys are made of."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Dataset = Literal[
    "phantom",
    "phantom-public",
    "vqa-rad",
    "slake",
    "path-vqa",
    "omnimedvqa",
    "pmc-vqa",
    "pmc-vqa-v2",
    "roco",
    "rocov2",
    "medpix",
    "table",
]


Order = Literal["nearest last", "nearest first", "random"]


class Settings(BaseModel):
    """Frozen, and strict about names: a mistyped setting never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes` as true, and Python true as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("yes and no are no values of this setting")
        return value


class DatasetSettings(Settings):
    """Which published data the study runs on."""

    name: Dataset | tuple[Dataset, ...] = "phantom"
    """The dataset, or a list of them (`fed-rag datasets` shows all); `phantom` is embedded and needs no files."""
    root: Path | tuple[Path | None, ...] | None = None
    """Folder that holds the dataset as published; of several datasets a list in their order, null where none needed."""
    language: Literal["en", "zh", "all"] = "en"
    """Language of the questions, where a dataset has several (SLAKE); of a table's questions, `zh` or else `en`."""
    frames: bool = False
    """Keep VQA-RAD's `frame` rows, which restate test questions with their answers."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of images that become the test split where none is published."""
    images: int = Field(120, ge=4)
    """Images drawn for each site (phantom only)."""
    max_rejected: float = Field(0.01, ge=0, le=1)
    """Largest share of a dataset's rows that may be unusable; they are listed in `rejected.json`."""

    @field_validator("name")
    @classmethod
    def _each_once(cls, name: Dataset | tuple[Dataset, ...]) -> Dataset | tuple[Dataset, ...]:
        if isinstance(name, tuple) and (not name or len(set(name)) < len(name)):
            raise ValueError("a list must name at least one dataset, and each once")
        return name

    @field_validator("root")
    @classmethod
    def _one_for_each(cls, root: Any, info: ValidationInfo) -> Any:
        name = info.data.get("name")
        if root is None or name is None:  # a wrong name is told by itself
            return root
        if isinstance(name, tuple) != isinstance(root, tuple) or (isinstance(name, tuple) and len(name) != len(root)):
            count = f"a list of {len(name)}" if isinstance(name, tuple) else "one folder, since dataset.name is one"
            raise ValueError(f"expected {count}, in the order of dataset.name")
        return root

    @property
    def sources(self) -> tuple[tuple[Dataset, Path | None], ...]:
        """Each dataset with its root."""
        names = self.name if isinstance(self.name, tuple) else (self.name,)
        roots = self.root if isinstance(self.root, tuple) else (self.root,) * len(names)
        return tuple(zip(names, roots, strict=True))

    @property
    def label(self) -> str:
        """What the data is called: `slake`, or `vqa-rad + slake`."""
        return " + ".join(name for name, _ in self.sources)


class SynthesisSettings(Settings):
    """Questions made from captions, and multiple choice made open."""

    generator: Literal["none", "rules", "model"] = "none"
    """What writes question-answer pairs from captions: nothing, rules, or a local language model."""
    model: str | None = None
    """Folder or hub id of the instruct model that writes them (`generator=model` only)."""
    ask_sex_and_age: bool = False
    """Let the rules ask for the patient's sex and age where the dataset states them."""
    choices: Literal["closed", "open"] = "closed"
    """Multiple choice with its options, scored by option (`closed`), or reworded without them (`open`)."""


class PartitionSettings(Settings):
    """Which hospital holds which images."""

    hospitals: int = Field(4, ge=1, le=1000)
    """Number of hospitals; 1 is the centralised study."""
    scheme: Literal["auto", "site", "dirichlet", "iid", "modality", "organ"] = "auto"
    """How images are dealt out; `auto` is `site` where the dataset names its sites, else `dirichlet`."""
    alpha: float = Field(0.5, gt=0)
    """Dirichlet concentration: small is skewed, large is even."""
    label: Literal["answer", "modality", "organ"] = "answer"
    """The image label that the Dirichlet scheme skews."""
    disjoint: Literal["none", "image", "near_duplicate", "patient"] = "none"
    """What training and test may not share; `none` keeps the published split, whatever it shares."""
    kind: Literal["all", "closed", "open"] = "all"
    """Kind of question that is kept, for training and test alike; which hospital holds which image stays the same."""
    training_share: float = Field(1, gt=0, le=1)
    """Share of the training images that is kept; a smaller share is part of a larger one, and no test case goes."""


class ModelSettings(Settings):
    """The frozen base that all hospitals share."""

    name: str = "embedded"
    """`embedded`, a preset such as qwen2-vl-2b (docs/models.md), a local Hugging Face folder, or a hub id."""
    revision: str | None = None
    """Hub revision (branch, tag or commit)."""
    max_pixels: int | None = Field(None, ge=784)
    """Upper bound on an image's pixels after resizing; the processor's own where not given."""
    gradient_checkpointing: bool = False
    """While training, keep each layer's input alone and compute the rest again: less memory, about a third slower."""
    quantisation: Literal["none", "nf4"] = "none"
    """`nf4` keeps the text model's linear layers in 4 bits (needs `pip install .[cuda]`); the tower stays as it is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes CUDA where there is one. CUDA computes in bfloat16, CPU in float32."""


class LoraSettings(Settings):
    """The adapter that is trained (PEFT LoRA)."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """Scaling numerator: an update is scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapter's input while training."""
    targets: tuple[str, ...] = Field(("q_proj", "v_proj"), min_length=1)
    """Names of the text model's linear layers that get an adapter."""


class FederationSettings(Settings):
    """Local training and its rounds."""

    aggregation: Literal["fedavg", "none"] = "fedavg"
    """How hospitals' updates become the next round's adapter; with `none` each goes on from its own, alone."""
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

    @property
    def local(self) -> "FederationSettings":
        """What matters within one round, so that studies that differ in the others share what hospitals trained."""
        return self.model_copy(update={"rounds": 1, "aggregation": "fedavg"})


class EngineSettings(Settings):
    """How the one base in memory is used; without dropout, what is learned does not depend on it."""

    executor: Literal["mapped", "batched"] = "mapped"
    """Hospitals of a round train one after the other (`mapped`), or all in one pass over the base (`batched`)."""


class ShownSettings(Settings):
    """Which of the retrieved cases the model is shown, and how."""

    k: int = Field(3, ge=0, le=50)
    """Cases shown with each question; 0 is no retrieval."""
    show: Literal["images+text", "text"] = "images+text"
    """What is shown of a case: its image, question and answer, or the words alone."""
    floor: float = Field(-1, ge=-1, le=1)
    """Similarity below which a case is not shown; -1 shows all."""
    order: Order = "nearest last"
    """Order of the cases in the prompt; the question follows the last. A random one follows from the question's id."""
    say_similarity: bool = False
    """Say in the prompt how similar each case is."""
    quote: bool = False
    """Show the cases as quoted data within the question's own turn, not as earlier turns of a conversation."""
    characters: int | None = Field(None, ge=1)
    """Most characters of a case's question and of its answer, invisible ones left out; as stored where not given."""


class EncoderSettings(Settings):
    """What makes rows of images and of texts."""

    encoder: Literal["base", "clip", "biomedclip"] = "base"
    """What images are compared by: the study's own vision tower, a CLIP or SigLIP of transformers, or BiomedCLIP."""
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


class RetrievalSettings(ShownSettings, EncoderSettings, FusionSettings):
    """The similar past cases that a hospital shows the model."""

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

    @property
    def shown(self) -> ShownSettings:
        """The part that prompts follow from: what is retrieved does not hang on it."""
        return ShownSettings(**{name: getattr(self, name) for name in ShownSettings.model_fields})

    @model_validator(mode="after")
    def _orders_once(self) -> Self:
        if self.rerank != "off" and self.diversity:
            raise ValueError("rerank and diversity both order the cases: set one of them")
        return self

    @property
    def encoding(self) -> EncoderSettings:
        """The part that an image's and a text's row follow from."""
        return EncoderSettings(**{name: getattr(self, name) for name in EncoderSettings.model_fields})

    @property
    def fusing(self) -> FusionSettings:
        """The part that the training of the fusion follows from."""
        return FusionSettings(**{name: getattr(self, name) for name in FusionSettings.model_fields})


class AnsweringSettings(Settings):
    """How questions are answered."""

    tokens_per_pass: int = Field(8192, ge=1)
    """Most tokens, prompts and answers, that the model holds at once."""
    max_new_tokens: int = Field(32, ge=1)
    """Longest answer, in tokens."""


class EvaluationSettings(AnsweringSettings):
    """How the test cases are answered."""

    coverage: float = Field(1, gt=0, le=1)
    """Share of questions to be answered; below 1, the answers that the model is least sure of are withheld."""
    reliance: int = Field(60, ge=0)
    """Test cases of each hospital that are asked again with images, neighbours or words altered; 0 leaves it out."""

    @property
    def answering(self) -> AnsweringSettings:
        """The part that the answers follow from."""
        return AnsweringSettings(**{name: getattr(self, name) for name in AnsweringSettings.model_fields})


class Study(Settings):
    """One study: an experiment is settings, never a new script."""

    dataset: DatasetSettings = DatasetSettings()
    """Which published data the study runs on."""
    synthesis: SynthesisSettings = SynthesisSettings()
    """Questions made from captions, and multiple choice made open."""
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
    seed: int = Field(0, ge=0, lt=2**31)
    """Every random choice of the study follows from it."""

    @property
    def configuration(self) -> str:
        """What the study is called beside others: `fed`, `centralised` or `local`, and `+rag` where it retrieves."""
        alone = "local" if self.federation.aggregation == "none" else "fed"
        return (alone if self.partition.hospitals > 1 else "centralised") + ("+rag" if self.retrieval.k else "")


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
