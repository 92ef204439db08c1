"""The frozen base: an ordinary Hugging Face vision-language model, from a local folder or the hub."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from tasks.engine.identity import resolve
from tasks.errors import StudyError

KINDS = ("qwen2_vl", "qwen2_5_vl")
"""Model types whose text model takes the tower's output as it is, so that it can be computed once."""


@dataclass(frozen=True)
class Base:
    """A loaded base, with what turns text and images into its inputs."""

    model: Any
    """The `transformers` model, for conditional generation."""
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any
    image_token_id: int
    """The placeholder that stands for one image feature in the prompt."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)


def load_base(name: str, revision: str | None = None, device: str = "auto", max_pixels: int | None = None) -> Base:
    """Load a base for inference, every weight frozen.

    Args:
        name: a local folder, a hub id, or `embedded`.
        revision: hub branch, tag or commit.
        device: `auto`, `cpu` or `cuda`; bfloat16 on CUDA, float32 on CPU.
        max_pixels: upper bound on a resized image's pixels; the processor's own if None.

    Raises StudyError where the model is absent, incomplete or of another kind.
    """
    place = resolve(name)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise StudyError("Setting model.device is cuda, but this machine has no CUDA device: set it to auto or cpu.")
    try:
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
        if config.model_type in KINDS:
            tokenizer, image_processor, model = _load(place, revision, config.image_token_id, device)
    except (MemoryError, torch.OutOfMemoryError):
        raise StudyError(f"Too little memory to load {place}: free some, or choose a smaller model.") from None
    except Exception as error:  # tokenizers raises plain Exception, safetensors and huggingface_hub their own kinds
        raise StudyError(_reason(place, error)) from None
    if config.model_type not in KINDS:
        raise StudyError(
            f"Expected model.name to be a vision-language model of type {' or '.join(KINDS)}, found {place} of type "
            f"{config.model_type}: choose another, as Qwen/Qwen2-VL-2B-Instruct."
        )
    if max_pixels is not None:
        # An image below the lower bound grows by whole rows of patches, which must not carry it past the upper one.
        smallest = min(image_processor.size["shortest_edge"], max_pixels // 4)
        image_processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
    model.requires_grad_(False).eval().to(device)
    return Base(model, tokenizer, image_processor, model.config.image_token_id)


def _load(place: str, revision: str | None, image_token_id: int, device: str) -> tuple[Any, Any, Any]:
    """Tokenizer, image processor and model; raises where one of them is incomplete."""
    # Unless refused, a model that brings its own code asks at the terminal whether to run it.
    source: dict[str, Any] = {"pretrained_model_name_or_path": place, "revision": revision, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    _try_tokenizer(tokenizer, image_token_id)
    image_processor = AutoImageProcessor.from_pretrained(**source)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        **source,
        dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    model, report = loaded
    # Transformers fills gaps with random weights and says so in passing.
    if report["missing_keys"]:
        raise ValueError(f"its weights lack {min(report['missing_keys'])}")
    # A folder's own habits (temperature, repetition penalty) have no place in a greedy answer.
    model.generation_config = GenerationConfig()
    return tokenizer, image_processor, model


def _try_tokenizer(tokenizer: Any, image_token_id: int) -> None:
    """Raise ValueError where a word or an image's placeholder gets lost: without its files, a tokenizer is empty."""
    content = [{"type": "image"}, {"type": "text", "text": "lung"}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids.count(image_token_id) != 1 or "lung" not in tokenizer.decode(ids):
        raise ValueError("its tokenizer or chat template is incomplete")


def _reason(place: str, error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return (
        f"Expected a whole vision-language model in {place} (config.json, safetensors, tokenizer, "
        f"preprocessor_config.json), found one that does not load ({first}): download it again."
    )
