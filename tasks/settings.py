"""The settings of a study: what the flow takes, what the dashboard shows, what cache keys are made of."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import StudyError


class Settings(BaseModel):
    """Frozen, and strict about names: a mistyped setting never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class DatasetSettings(Settings):
    """Which published data the study runs on."""

    name: Literal["phantom", "phantom-public", "vqa-rad", "slake"] = "phantom"
    """The dataset; `phantom` is embedded and needs no files."""
    root: Path | None = None
    """Folder that holds the dataset as published (not used by phantom)."""
    language: Literal["en", "zh", "all"] = "en"
    """Language of the questions, where a dataset has several (SLAKE)."""
    frames: bool = False
    """Keep VQA-RAD's `frame` rows, which restate test questions with their answers."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of images that become the test split where none is published."""
    images: int = Field(120, ge=4)
    """Images drawn for each site (phantom only)."""


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


class ModelSettings(Settings):
    """The frozen base that all hospitals share."""

    name: str = "embedded"
    """`embedded`, a preset such as qwen2-vl-2b (docs/models.md), a local Hugging Face folder, or a hub id."""
    revision: str | None = None
    """Hub revision (branch, tag or commit)."""
    max_pixels: int | None = Field(None, ge=784)
    """Upper bound on an image's pixels after resizing; the processor's own where not given."""
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

    rounds: int = Field(3, ge=1)
    """Rounds of local training and averaging."""
    local_epochs: int = Field(1, ge=1)
    """Passes over a hospital's training cases in each round."""
    batch_size: int = Field(16, ge=1)
    """Cases in one optimiser step."""
    learning_rate: float = Field(1e-3, gt=0)
    """AdamW learning rate; LightFED used 2e-5 for the 2B model."""
    holdout: float = Field(0.1, ge=0, lt=1)
    """Share of a hospital's training images kept out of training, for the evaluation loss of each round."""


class RetrievalSettings(Settings):
    """The similar past cases that a hospital shows the model."""

    k: int = Field(3, ge=0, le=50)
    """Cases shown with each question; 0 is no retrieval."""
    image_weight: float = Field(0.5, ge=0, le=1)
    """Weight of image similarity against question similarity."""


class EvaluationSettings(Settings):
    """How the test cases are answered."""

    batch_size: int = Field(64, ge=1)
    """Questions answered at once."""
    max_new_tokens: int = Field(32, ge=1)
    """Longest answer, in tokens."""


class Study(Settings):
    """One study: an experiment is settings, never a new script."""

    dataset: DatasetSettings = DatasetSettings()
    """Which published data the study runs on."""
    partition: PartitionSettings = PartitionSettings()
    """Which hospital holds which images."""
    model: ModelSettings = ModelSettings()
    """The frozen base that all hospitals share."""
    lora: LoraSettings = LoraSettings()
    """The adapter that is trained."""
    federation: FederationSettings = FederationSettings()
    """Local training and its rounds."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """The similar past cases that a hospital shows the model."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How the test cases are answered."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Every random choice of the study follows from it."""

    @property
    def configuration(self) -> str:
        """What the study is called beside others: `fed+rag`, `fed`, `centralised+rag` or `centralised`."""
        return ("fed" if self.partition.hospitals > 1 else "centralised") + ("+rag" if self.retrieval.k else "")


class Lesson(Settings):
    """One part of the training of a base's text model."""

    title: str
    """What the lesson is called in progress bars and in the dashboard."""
    kind: Literal["closed", "open"] | None = None
    """Only questions of this kind; all where not given."""
    shown: int = Field(0, ge=0)
    """Most retrieved cases in a prompt: each question gets a random number of them, from 0 to this."""
    epochs: int = Field(1, ge=1)
    """Passes over the questions."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak AdamW learning rate; it falls along a cosine."""


def describe(model: type[BaseModel] = Study, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted name, default, description), in the order of the file."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from describe(field.annotation, f"{prefix}{name}.")
        else:
            default = field.get_default()
            shown = list(default) if isinstance(default, tuple) else default
            yield (
                f"{prefix}{name}",
                yaml.safe_dump(shown, default_flow_style=True).split("\n")[0],
                str(field.description),
            )


def load_study(file: Path | None = None, assignments: tuple[str, ...] = ()) -> Study:
    """The study of a YAML file, with `a.b=c` assignments on top (values are read as YAML).

    Raises StudyError, naming the setting, where a name is unknown or a value does not fit.
    """
    values = _read_yaml(file) if file else {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise StudyError(f"Expected --set NAME=VALUE, found {assignment!r}: write it as --set retrieval.k=5.")
        _assign(values, name.strip(), _parse(name, text))
    _refuse_unknown_names(values, Study, "")
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(_first_problem(error)) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"Cannot read the settings file {file}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"Expected YAML in {file}, found something else ({reason}): correct the file.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise StudyError(f"Expected settings by name in {file}, found a {type(values).__name__}: write `seed: 0`.")
    return values


def _parse(name: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise StudyError(f"Cannot read the value of {name.strip()}: found {text!r}; quote it as YAML.") from None
    # YAML 1.1 reads 1e-3 as text; people mean the number.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _assign(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise StudyError(f"Expected a group of settings at {parent!r} in {name!r}, found {inner!r}.")
        values = inner
    values[leaf] = value


def _refuse_unknown_names(values: Mapping[str, Any], model: type[BaseModel], prefix: str) -> None:
    for name, value in values.items():
        field = model.model_fields.get(str(name))
        if field is None:
            unknown = f"{prefix}{name}"
            while isinstance(value, Mapping) and value:  # of an unknown group, the first setting
                name, value = next(iter(value.items()))
                unknown += f".{name}"
            raise StudyError(f"Unknown setting {unknown}: {_nearest(unknown)}.")
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if not isinstance(value, Mapping):
                raise StudyError(f"Expected a group of settings at {prefix}{name}, found {value!r}.")
            _refuse_unknown_names(value, inner, f"{prefix}{name}.")


def _nearest(name: str) -> str:
    known = [setting for setting, _, _ in describe()]
    group, _, leaf = name.rpartition(".")
    found = (
        [setting for setting in known if leaf and setting.startswith(group) and leaf == _initials(setting)]
        or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        or [setting for setting in known if setting.split(".")[-1] == leaf]
    )
    return f"did you mean {found[0]}" if found else "`fed-rag run --help` lists all of them"


def _initials(setting: str) -> str:
    """`lr` of `federation.learning_rate`."""
    words = setting.split(".")[-1].split("_")
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"])
    return f"Setting {name} does not fit: {problem['msg']}, found {problem['input']!r}."
