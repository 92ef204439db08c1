"""The frozen base: an ordinary Hugging Face vision-language model, from a local folder or the hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from tasks.engine.families.family import Family
from tasks.engine.families.registry import family_of, refuse_foreign
from tasks.engine.fast.bfloat16 import attend_in_float32
from tasks.engine.fast.onednn import use_the_faster
from tasks.engine.fast.quantise import blank_model, four_bits, need_bitsandbytes
from tasks.engine.identity import device_of, precision_of, resolve
from tasks.engine.memory import check_memory
from tasks.errors import OURS, StudyError

transformers_logging.disable_progress_bar()  # for reading weights, between our own lines; the hub shows downloads


@dataclass(frozen=True)
class Base:
    """A loaded base, with its tokenizer and image processor."""

    model: Any
    """The `transformers` model, for conditional generation."""
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any
    image_token_id: int
    """Id of the placeholder token. In a prompt, each placeholder stands for one image feature."""
    image_tokens: int | None = None
    """Tokens of each image, pooled from the tower's square map (`tower.look`); None for all."""
    tokenised: dict[bytes, Any] = field(default_factory=dict, repr=False, compare=False)
    """The results of `encode` by the digest of the prompt: each round encodes the same prompts."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return torch.device(self.model.device)

    @property
    def config(self) -> Any:
        """The model's configuration, with or without an adapter."""
        return self.model.config

    @property
    def family(self) -> Family:
        """The family that the model's type belongs to."""
        return family_of(self.config.model_type, "the base")


def load_base(
    name: str,
    revision: str | None = None,
    device: str = "auto",
    max_pixels: int | None = None,
    gradient_checkpointing: bool = False,
    quantisation: str = "none",
    image_tokens: int | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Base:
    """Load a base for inference, with all weights frozen.

    Args:
        name: a preset, a local folder, a hub id, or `embedded`.
        revision: hub branch, tag or commit.
        device: `auto`, `cpu` or `cuda`.
        max_pixels: upper bound on the pixels of a resized image; None for the processor's default.
        gradient_checkpointing: in training, keep only the input of each layer and compute the layer again for its
            gradients (arXiv 1604.06174).
        quantisation: `none`, or `nf4` for 4-bit linear layers in the text model (see `four_bits`).
        image_tokens: tokens of each image, a square number; None for as many as the model makes of it.
        precision: type of the weights, `float32`, `bfloat16`, or `auto` for bfloat16 on CUDA and float32 on the CPU.

    Raises StudyError if the model is absent, incomplete, of another kind or too large for this machine, if CUDA or
    bitsandbytes is needed and absent, or if its images have no square of tokens to be pooled.
    """
    place = resolve(name)
    device = device_of(device)
    if device == "cuda" and not torch.cuda.is_available():
        raise StudyError("Setting model.device is cuda, but this machine has no CUDA device: set it to auto or cpu.")
    config = _config(place, revision)
    family = family_of(config.model_type, place)
    dtype: torch.dtype = getattr(torch, precision_of(precision, device))
    if image_tokens is not None and family.merge(config) != 1:
        raise StudyError(
            f"Expected no model.image_tokens for {place}, whose tower joins patches itself, found {image_tokens}: "
            "leave it out, or bound an image by model.max_pixels."
        )
    is_quantised = quantisation == "nf4"
    if is_quantised:
        need_bitsandbytes()
    with _whole(place, "config.json"):
        check_memory(config, dtype, device, place, is_quantised)
    kept_as = {"quantization_config": four_bits(config, dtype), "device_map": {"": device}} if is_quantised else {}
    tokenizer, image_processor, model = _load(place, revision, family, config, dtype=dtype, **kept_as)
    if max_pixels is not None:
        family.limit(config, image_processor, max_pixels)
    model.requires_grad_(False).eval()
    keep_statistics(model)
    use_the_faster(model)
    if device == "cpu" and dtype is torch.bfloat16:
        attend_in_float32(model)
    if not is_quantised:  # 4-bit weights are already on the device
        model.to(device)
    if gradient_checkpointing:
        compute_again(model)
    return Base(model, tokenizer, image_processor, model.config.image_token_id, image_tokens)


def outline(name: str, revision: str | None = None) -> tuple[Any, Family]:
    """A base's model without storage, built from its configuration alone, and its family."""
    place = resolve(name)
    config = _config(place, revision)
    return blank_model(config), family_of(config.model_type, place)


def keep_statistics(model: Any) -> None:
    """Keep each batch normalisation at its published statistics, also while the model trains, and its gradients right.

    A convolutional tower would otherwise change with every batch of images, though none of its weights learns. And
    PyTorch 2.13 on CPU permutes the gradient of a single image that comes in channels-last order, as FastVLM's does.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(_at_rest)
            module.register_forward_hook(_gradient_in_order)


def _at_rest(module: torch.nn.Module, _: Any) -> None:
    module.eval()


def _gradient_in_order(_: torch.nn.Module, __: Any, made: torch.Tensor) -> None:
    if made.requires_grad:
        made.register_hook(torch.Tensor.contiguous)


def compute_again(model: Any) -> None:
    """Turn on gradient checkpointing for all layers but the last."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    # The backward pass starts with the last layer, so computing it a second time saves no memory.
    model.model.language_model.layers[-1].gradient_checkpointing = False


def _config(place: str, revision: str | None) -> Any:
    """The model's configuration. Raises StudyError if transformers cannot read it."""
    with _whole(place, "config.json"):
        kind = PreTrainedConfig.get_config_dict(place, revision=revision)[0].get("model_type", "")
        refuse_foreign(kind, place)
        return AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)


def _load(place: str, revision: str | None, family: Family, config: Any, **weights: Any) -> tuple[Any, Any, Any]:
    """Tokenizer, image processor and model. Raises StudyError if one of them is incomplete.

    `weights` are options for loading the weights: `dtype`, `quantization_config`, `device_map`.
    """
    # By default, transformers asks at the terminal whether to run code that a model brings.
    source: dict[str, Any] = {"pretrained_model_name_or_path": place, "revision": revision, "trust_remote_code": False}
    with _whole(place, "tokenizer"):
        # Without this file, turns would start and end with the wrong tokens, or with none.
        cached_file(place, "tokenizer_config.json", revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        _try_tokenizer(tokenizer, family, config)
    if tokenizer.pad_token is None:  # any token will do, since the mask is 0 there
        tokenizer.pad_token = tokenizer.eos_token
    with _whole(place, "image processor"):
        image_processor = AutoImageProcessor.from_pretrained(**source)
    with _whole(place, "weights"):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            **source,
            **weights,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported below
        )
        model, report = loaded
        # Transformers fills gaps with random weights and drops unknown layers, with no more than a warning.
        if report["missing_keys"]:
            raise ValueError(f"they lack {min(report['missing_keys'])}")
        if report["mismatched_keys"]:
            name, found, expected = min(report["mismatched_keys"])
            raise ValueError(f"{name} is {tuple(found)}, and {tuple(expected)} by config.json")
        left = [name for name in report["unexpected_keys"] if re.search(r"\.(layers|blocks)\.\d+\..*weight$", name)]
        if left:
            raise ValueError(f"config.json has no place for {min(left)}")
    # Greedy answers must not use the folder's generation settings (temperature, repetition penalty).
    model.generation_config = GenerationConfig()
    return tokenizer, image_processor, model


def _try_tokenizer(tokenizer: Any, family: Family, config: Any) -> None:
    """Raise ValueError if a word or an image's placeholder gets lost: a tokenizer without its files is empty."""
    content = [{"type": "image"}, {"type": "text", "text": "lung"}]
    text = family.text(tokenizer, config, [{"role": "user", "content": content}])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids.count(config.image_token_id) != 1 or "lung" not in tokenizer.decode(ids):
        raise ValueError("words or an image's placeholder get lost in it or in its chat template")


@contextmanager
def _whole(place: str, part: str) -> Iterator[None]:
    """Raise StudyError if a part of a model does not load or does not fit into memory."""
    try:
        yield
    except StudyError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise StudyError(f"Too little memory to load {place}: free some, or choose a smaller model.") from None
    except OURS:
        raise
    except Exception as error:  # tokenizers raises plain Exception; safetensors and huggingface_hub have their own
        first = re.split(r"[.!?:]?\s*\n|[.!?] ", str(error).strip())[0].rstrip(".!?: ")
        raise StudyError(
            f"Expected a whole vision-language model in {place} (config.json, safetensors, tokenizer, "
            f"preprocessor_config.json), found its {part} unusable ({first}): download it again."
        ) from None
