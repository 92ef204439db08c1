"""Settings of the data: which is read, what is made of it, and which hospital holds it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from tasks.settings.base import Settings

Dataset = Literal[
    "phantom",
    "phantom-public",
    "phantom-terms",
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
    test: Literal["published", "validation"] = "published"
    """What serves as test split: the published one, or one that is made where none is; or the validation split, and
    then published test cases are left out."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of images that become the test split where none is published."""
    images: int = Field(120, ge=4)
    """Images drawn for each site (phantom only)."""
    max_rejected: float = Field(0.01, ge=0, le=1)
    """Largest share of a dataset's rows that may be unusable, and at least one row unless 0; see `rejected.json`."""

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
    """What writes question-answer pairs from captions: nothing, rules, or a local language model, of which a small one
    finds far less than the rules."""
    model: str | None = None
    """Folder or hub id of the instruct model that writes them (`generator=model` only)."""
    ask_sex_and_age: bool = False
    """Let the rules ask for the patient's sex and age where the dataset states them."""
    choices: Literal["closed", "open"] = "closed"
    """Multiple choice with its options, scored by option (`closed`), or reworded without them (`open`)."""


class AuditSettings(Settings):
    """The negative control of the audit's near-duplicates."""

    control: Dataset | None = None
    """Unrelated dataset of similar images: how many of them pass as copies of training images is what likeness alone
    gives. By default none, and `phantom-public` for the embedded datasets."""
    control_root: Path | None = None
    """Folder that holds the control as published."""


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
