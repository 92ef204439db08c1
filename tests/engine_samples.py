"""A tiny real Qwen2-VL, a few images and a few cases for the tests of tasks/engine and tasks/federate."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from tasks.engine.adapter import State
from tasks.engine.base import Base
from tasks.engine.generate import generate
from tasks.engine.prompt import Prompt, build_prompt
from tasks.pretrain.blank import blank_base, train_tokenizer
from tasks.records import Case, Image
from tasks.settings import ContextSettings

# Square, wide, tall, tiny, larger than the tower takes, and of odd sides.
SIZES = ((84, 84), (140, 60), (50, 200), (30, 28), (330, 240), (97, 131))
TEXTS = (
    ("Is there a mass?", "yes"),
    ("Where is the nodule?", "upper left"),
    ("Which part of the body is shown in this image, and what is wrong with it?", "chest with a large effusion"),
    ("What?", "fracture"),
    ("图中有什么异常?", "左肺肿块"),
    ("Is the finding\non the right side?", "no"),
    ("What imaging modality is this?", "x-ray"),
    ("How large is the effusion?", "small"),
)


def picture(width: int, height: int, seed: int) -> bytes:
    """A PNG of smooth random colours, so that its resized form still differs from others'."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    sink = io.BytesIO()
    PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()


IMAGES = [Image(f"image-{n}", picture(*size, n), *size) for n, size in enumerate(SIZES)]


def case(number: int, image_id: str, question: str, answer: str, split: Any = "train") -> Case:
    return Case(f"toy:{number}", image_id, question, answer, "open", split, "toy", "en")


CASES = [case(n, f"image-{n % len(SIZES)}", *text) for n, text in enumerate(TEXTS)]


def prompts_with_neighbours(**how: Any) -> list[Prompt]:
    """Each case with 0, 1, 2 or 3 others shown."""
    contexts = [[CASES[(n + 1 + i) % len(CASES)] for i in range(n % 4)] for n in range(len(CASES))]
    shown = ContextSettings(**how)
    return [build_prompt(query, earlier, how=shown) for query, earlier in zip(CASES, contexts, strict=True)]


def answer_texts(*arguments: Any, **bounds: Any) -> list[str]:
    """What `generate` answers, without how sure it is: that moves in its last digits with the batch."""
    return [answer.text for answer in generate(*arguments, **bounds)]


def make_folder(folder: Path) -> Path:
    """Write the tiny model as an ordinary Hugging Face folder."""
    tokenizer = train_tokenizer([text for pair in TEXTS for text in pair], 400)
    base = blank_base(tokenizer, edge=84, width=64, depth=2, seed=0)
    spread(base.model)
    for part in (base.model, base.tokenizer, base.image_processor):
        part.save_pretrained(folder)
    return folder


def spread(model: torch.nn.Module) -> None:
    """Draw weights large enough that the outputs depend on every input; initial ones hardly let anything through."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            deviation = 0.05 if "embed_tokens" in name else 1.5 / parameter[0].numel() ** 0.5
            torch.nn.init.normal_(parameter, std=deviation, generator=generator)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)


def randomised(state: Mapping[str, torch.Tensor], seed: int, scale: float = 0.2) -> State:
    """Random values of the same names and shapes; a fresh adapter's B is zero and would show nothing."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(state[name].shape, generator=generator) * scale for name in sorted(state)}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """True where names and all bits are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@torch.inference_mode()
def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """`(B, T, vocabulary)`, zero where the input is padding (whose logits mean nothing)."""
    found: torch.Tensor = model(**inputs).logits
    return found * inputs["attention_mask"].unsqueeze(-1)


def chat_text(turns: Sequence[tuple[str, str | None]]) -> str:
    """Qwen2-VL's chat format written out: questions with the answers given so far, None where it is to be given."""
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    for question, answer in turns:
        text += f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n"
        text += "<|im_start|>assistant\n" + (f"{answer}<|im_end|>\n" if answer is not None else "")
    return text


def pixel_inputs(base: Base, text: str, image_ids: Iterable[str]) -> dict[str, torch.Tensor]:
    """One row of model inputs from text and pixels, as Qwen2-VL's documentation describes them; no project code."""
    images = {image.id: image for image in IMAGES}
    pictures = [PIL.Image.open(io.BytesIO(images[image_id].data)).convert("RGB") for image_id in image_ids]
    pixels = base.image_processor(images=pictures, return_tensors="pt")
    pieces = text.split("<|image_pad|>")
    assert len(pieces) == len(pictures) + 1
    whole = pieces[0]
    for (_, height, width), piece in zip(pixels["image_grid_thw"].tolist(), pieces[1:], strict=True):
        whole += "<|image_pad|>" * (height // 2 * (width // 2)) + piece
    ids = base.tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == base.tokenizer.convert_tokens_to_ids("<|image_pad|>")).int(),
        "pixel_values": pixels["pixel_values"],
        "image_grid_thw": pixels["image_grid_thw"],
    }
