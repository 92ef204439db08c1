"""The language model that writes questions: any instruct model of transformers, with or without a vision tower."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tasks.errors import OURS, StudyError
from tasks.records import Caption
from tasks.synthesize.prompts import messages

BATCH = 20
"""Number of captions in a batch."""
MAX_NEW_TOKENS = 160
"""Enough for about ten lines."""


def load_writer(name: str, device: str) -> Callable[[Sequence[Caption]], Iterator[str]]:
    """Load an instruct model that replies to captions by greedy decoding.

    Args:
        name: its folder or hub id.
        device: `cpu`, in float32, or `cuda`, in bfloat16.

    Raises StudyError where it does not load or has no chat template.
    """
    import torch
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoTokenizer,
        GenerationConfig,
    )

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False, padding_side="left")
        sees = type(AutoConfig.from_pretrained(name, trust_remote_code=False)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        kind: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model: Any = kind.from_pretrained(name, dtype=dtype, trust_remote_code=False, use_safetensors=True)
        tokenizer.apply_chat_template(messages("A chest x-ray."), add_generation_prompt=True, tokenize=False)
    except (MemoryError, torch.OutOfMemoryError):
        raise StudyError(f"Too little memory to load {name}: free some, or choose a smaller model.") from None
    except OURS:
        raise
    except Exception as error:  # tokenizers raises plain Exception, jinja and huggingface_hub their own kinds
        first = str(error).strip().split("\n")[0]
        raise StudyError(
            f"Expected synthesis.model to be an instruct model with a chat template, found {name!r}, which does "
            f"not load ({first}): give the folder or hub id of another, or set synthesis.generator=rules."
        ) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config = GenerationConfig()
    model.eval().to(device)

    def write(captions: Sequence[Caption]) -> Iterator[str]:
        for start in range(0, len(captions), BATCH):
            yield from _reply(model, tokenizer, captions[start : start + BATCH])

    return write


def _reply(model: Any, tokenizer: Any, captions: Sequence[Caption]) -> list[str]:
    import torch

    texts = [
        tokenizer.apply_chat_template(messages(caption.text), add_generation_prompt=True, tokenize=False)
        for caption in captions
    ]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    with torch.inference_mode():
        ids = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return tokenizer.batch_decode(ids[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
