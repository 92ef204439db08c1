"""Questions by a language model: any instruct model of Transformers; each pair is checked, and refused if wrong."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tasks.errors import OURS, StudyError
from tasks.records import Caption
from tasks.synthesize.drafts import Draft, from_caption
from tasks.synthesize.findings import PATTERN, kind_of
from tasks.synthesize.lexicon import values
from tasks.synthesize.prompts import messages
from tasks.synthesize.quality import without_filler
from tasks.synthesize.support import objection

BATCH = 8
"""Number of captions in a batch."""
MAX_NEW_TOKENS = 512
LONGEST = 300
"""Most characters of a question or an answer; longer ones are refused."""
TOPICS = (
    ("modality", r"modality|imaging technique|type of (?:image|imaging|scan)|how was|taken by"),
    ("plane", r"\bplane\b|orientation|\b(?:axial|coronal|sagittal) (?:image|view|slice)"),
    ("side", r"which side|on the (?:left|right)(?: side)?\?|\bside\b"),
    ("location", r"\bwhere\b|located|location|which (?:region|part|area|lobe)"),
    ("size", r"how (?:large|big)|\bsize\b"),
)


def parse_reply(text: str, caption: Caption) -> tuple[list[Draft], list[str]]:
    """Parse the pairs of a model's reply; also return why others were refused, as `reason: what was found`.

    The whole reply is refused where it holds no JSON list. A pair is refused where it lacks a part, its span is not in
    the caption, or its answer does not follow from the span. Never raises, whatever the model wrote.
    """
    try:
        items = json.loads(text[text.index("[") : text.rindex("]") + 1])
    except (ValueError, RecursionError):
        return [], [_refusal("the reply is no JSON list", text)]
    if not isinstance(items, list):
        return [], [_refusal("the reply is no JSON list", text)]
    drafts, refused = [], []
    for item in items:
        draft = _draft(item, caption)
        if isinstance(draft, str):
            refused.append(_refusal(draft, item))
        else:
            drafts.append(draft)
    return drafts, refused


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


def _draft(item: Any, caption: Caption) -> Draft | str:
    """The pair of one entry of the list, or the reason for refusing it."""
    if not isinstance(item, dict):
        return "a pair is no object"
    parts = [item.get(name) for name in ("question", "answer", "span")]
    if not all(isinstance(part, str) and part.strip() for part in parts):
        return "a pair lacks question, answer or span"
    question, answer, span = (" ".join(str(part).split()) for part in parts)
    if max(len(question), len(answer)) > LONGEST or not question.endswith("?"):
        return "the question or the answer has not the form of one"
    place = re.search(r"\s+".join(map(re.escape, span.split())), caption.text, re.IGNORECASE)
    if place is None:
        return "the span is not in the caption"
    # Filler is removed later and must not affect the check of the answer.
    bare = without_filler(answer).rstrip(".")
    answer = bare.lower() if bare.lower() in ("yes", "no") else answer.rstrip(".")
    topic = _topic(question, answer)
    names = [kind_of(match[0]).name for match in PATTERN.finditer(question)]
    value = next(iter(sorted(values(topic, question))), "") if topic in ("modality", "plane", "side", "size") else ""
    about = names[0] if names else ""
    draft = from_caption(caption, *place.span(), topic, question, answer, value=value or about, about=about)
    checked = replace(draft, question=without_filler(question), answer=bare)
    return f"the answer is not supported: {reason}" if (reason := objection(checked)) else draft


def _topic(question: str, answer: str) -> str:
    for topic, pattern in TOPICS:
        if re.search(pattern, question, re.IGNORECASE):
            return topic
    return "presence" if answer in ("yes", "no") else "finding"


def _refusal(reason: str, found: Any) -> str:
    text = " ".join(str(found).split())
    return f"{reason}: found {text[:120]!r}"
