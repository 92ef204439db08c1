"""Tiny twins: every family's real class with a small configuration, and its prompts made without project code."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from engine_samples import IMAGES, TEXTS, chat_text, make_folder, pixel_inputs, spread
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    EfficientNetConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    Gemma2Config,
    GemmaConfig,
    GemmaTokenizer,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    SiglipVisionConfig,
    ViTConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tasks.engine.base import Base, load_base
from tasks.engine.families.smol_clip import TEMPLATE

Turns = Sequence[tuple[str, str | None]]
"""Questions with the answers given so far, None where it is to be given."""
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
TOWER = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass(frozen=True)
class Twin:
    """A family's tiny model, and what its documentation says a prompt is."""

    make: Callable[[Path], Path]
    """Writes the model as an ordinary folder."""
    row: Callable[[Base, Turns, Iterable[str], str | None], dict[str, torch.Tensor]]
    """Model inputs of one row from pixels; with an answer, it and its end follow the prompt."""
    end: str
    """What ends an answer."""
    grown: dict[str, int]
    """Inputs that grow with the row, and their value at a token of the answer."""


def pictures(image_ids: Iterable[str]) -> list[PIL.Image.Image]:
    images = {image.id: image for image in IMAGES}
    return [PIL.Image.open(io.BytesIO(images[image_id].data)).convert("RGB") for image_id in image_ids]


def qwen_row(base: Base, turns: Turns, image_ids: Iterable[str], answer: str | None) -> dict[str, torch.Tensor]:
    return pixel_inputs(base, chat_text(turns) + (f"{answer}<|im_end|>" if answer is not None else ""), image_ids)


def make_qwen2_5_vl(folder: Path) -> Path:
    base = load_base(str(make_folder(folder)), device="cpu")
    text = base.model.config.text_config.to_dict()
    del text["model_type"]
    tower = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": 64}
    marks = {n: getattr(base.model.config, n) for n in ("image_token_id", "video_token_id", "vision_start_token_id")}
    tower |= {"window_size": 56, "fullatt_block_indexes": [1]}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=tower, **marks))
    return save(folder, model, base.tokenizer, base.image_processor)


def save(folder: Path, model: Any, tokenizer: Any, image_processor: Any) -> Path:
    spread(model)
    for part in (model.eval(), tokenizer, image_processor):
        part.save_pretrained(folder)
    return folder


def pieces(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a small BPE of SentencePiece's kind, with bytes to fall back on."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*special, *BYTES], show_progress=False)
    # Each text also as it stands after a space, as in a prompt; Chinese is left to the bytes.
    core.train_from_iterator(
        [f"{before}{text}" for pair in TEXTS[:4] for text in pair for before in ("", " ")], trainer
    )
    made = json.loads(core.to_str())["model"]
    return made["vocab"], [(one, other) for one, other in made["merges"]]


def llama_tokenizer() -> LlamaTokenizer:
    vocabulary, merges = pieces(["<unk>", "<s>", "</s>", "<pad>", "<image>"])
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, pad_token="<pad>", add_bos_token=True)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    return tokenizer


def gemma_tokenizer() -> GemmaTokenizer:
    vocabulary, merges = pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<image>"])
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    return tokenizer


def llama3_tokenizer(image: bool = True) -> PreTrainedTokenizerFast:
    """Bytes, special marks for turns, and neither padding nor unknown words, as LLaMA-3 is published."""
    marks = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    marks += ["<image>"] if image else []
    return byte_tokenizer(marks, bos_token=marks[0], eos_token="<|eot_id|>", additional_special_tokens=marks[1:])


def byte_tokenizer(marks: list[str], **special: Any) -> PreTrainedTokenizerFast:
    """A small byte-level BPE with these special tokens first."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator([text for pair in TEXTS for text in pair], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def make_llava(folder: Path, text: type, tower: type, tokenizer: Any) -> Path:
    """A LLaVA of these configurations; its processor scales the shorter edge and crops the middle."""
    config = LlavaConfig(
        vision_config=tower(**TOWER),
        text_config=text(vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id, **TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    return save(folder, LlavaForConditionalGeneration(config), tokenizer, processor)


def llava_row(
    base: Base, text: str, image_ids: Iterable[str], patch: int = 14, class_token: bool = True
) -> dict[str, torch.Tensor]:
    """As transformers' own processor gives it."""
    processor = LlavaProcessor(
        base.image_processor,
        base.tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default" if class_token else "full",
        num_additional_image_tokens=int(class_token),
    )
    found = dict(processor(text=text, images=pictures(image_ids), return_tensors="pt"))
    return {name: found[name] for name in ("input_ids", "attention_mask", "pixel_values")}


def vicuna_row(base: Base, turns: Turns, image_ids: Iterable[str], answer: str | None) -> dict[str, torch.Tensor]:
    *earlier, (last, _) = turns
    text = "".join(f"USER: <image>\n{question} ASSISTANT: {given}</s>" for question, given in earlier)
    text += f"USER: <image>\n{last} ASSISTANT:" + (f" {answer}</s>" if answer is not None else "")
    return llava_row(base, text, image_ids)


def mistral_row(base: Base, turns: Turns, image_ids: Iterable[str], answer: str | None) -> dict[str, torch.Tensor]:
    *earlier, (last, _) = turns
    text = "".join(f"[INST] <image>\n{question} [/INST] {given}</s>" for question, given in earlier)
    text += f"[INST] <image>\n{last} [/INST]" + (f" {answer}</s>" if answer is not None else "")
    return llava_row(base, text, image_ids)


def llama3_row(base: Base, turns: Turns, image_ids: Iterable[str], answer: str | None) -> dict[str, torch.Tensor]:
    text = "<|begin_of_text|>"
    for question, given in turns:
        text += f"<|start_header_id|>user<|end_header_id|>\n\n<image>\n{question}<|eot_id|>"
        text += "<|start_header_id|>assistant<|end_header_id|>\n\n" + (
            f"{given}<|eot_id|>" if given is not None else ""
        )
    return llava_row(base, text + (f"{answer}<|eot_id|>" if answer is not None else ""), image_ids)


def make_paligemma(folder: Path, text: type) -> Path:
    tokenizer = gemma_tokenizer()
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=text(vocab_size=len(tokenizer), bos_token_id=2, eos_token_id=1, pad_token_id=0, **TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        hidden_size=64,
    )
    processor = SiglipImageProcessorPil(size={"height": 56, "width": 56})
    processor.image_seq_length = 16
    return save(folder, PaliGemmaForConditionalGeneration(config), tokenizer, processor)


def paligemma_row(base: Base, turns: Turns, image_ids: Iterable[str], answer: str | None) -> dict[str, torch.Tensor]:
    """As transformers' own processor gives it: it adds the first token, the last line feed and the end."""
    *earlier, (last, _) = [(" ".join(question.split()), given) for question, given in turns]
    text = "<image>" * len(turns) + "".join(f"answer en {question}\n{given}\n" for question, given in earlier)
    processor = PaliGemmaProcessor(base.image_processor, base.tokenizer)
    found = processor(text=[f"{text}answer en {last}"], images=pictures(image_ids), suffix=answer and [answer])
    pixels = base.image_processor(pictures(image_ids), return_tensors="pt")["pixel_values"]
    texts = {name: torch.tensor(found[name]) for name in ("input_ids", "attention_mask", "token_type_ids")}
    return {"pixel_values": pixels, **texts}


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and ChatML's marks, as SmolLM2 has them: what starts a turn also starts a text."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    tokenizer = byte_tokenizer(
        marks,
        bos_token=marks[1],
        eos_token=marks[2],
        unk_token=marks[0],
        pad_token=marks[2],
        additional_special_tokens=["<image>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_fast_vlm(folder: Path) -> Path:
    """A convolutional tower whose map is 4 x 4, with batch statistics and scales that are not 0 and 1."""
    tokenizer = chatml_tokenizer()
    tower = EfficientNetConfig(
        image_size=64,
        width_coefficient=0.05,
        depth_coefficient=1.0,
        in_channels=(160, 160, 320),
        out_channels=(160, 320, 320),
        kernel_sizes=(3, 5, 3),
        strides=(2, 2, 2),
        num_block_repeats=(1, 1, 2),
        expand_ratios=(1, 2, 2),
        hidden_act="relu6",
        hidden_dim=64,
        hidden_size=64,
        drop_connect_rate=0.0,
    )
    config = FastVlmConfig(
        vision_config=tower,
        text_config=LlamaConfig(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    model = FastVlmForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.3, generator=generator)
            torch.nn.init.normal_(module.running_mean, std=0.2, generator=generator)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
    processor = EfficientNetImageProcessorPil(size={"height": 64, "width": 64}, include_top=False)
    return save(folder, model, tokenizer, processor)


def chatml_row(base: Base, turns: Turns, image_ids: Iterable[str], answer: str | None) -> dict[str, torch.Tensor]:
    text = ""
    for question, given in turns:
        text += f"<|im_start|>user\n<image>\n{question}<|im_end|>\n<|im_start|>assistant\n"
        text += f"{given}<|im_end|>\n" if given is not None else ""
    text += f"{answer}<|im_end|>" if answer is not None else ""
    return llava_row(base, text, image_ids, patch=16, class_token=False)


QWEN = {"mm_token_type_ids": 0}
TWINS = {
    "qwen2-vl": Twin(make_folder, qwen_row, "<|im_end|>", QWEN),
    "qwen2.5-vl": Twin(make_qwen2_5_vl, qwen_row, "<|im_end|>", QWEN),
    "llava": Twin(lambda f: make_llava(f, LlamaConfig, CLIPVisionConfig, llama_tokenizer()), vicuna_row, "</s>", {}),
    "llava-med": Twin(
        lambda f: make_llava(f, MistralConfig, CLIPVisionConfig, llama_tokenizer()), mistral_row, "</s>", {}
    ),
    "llama-clip": Twin(
        lambda f: make_llava(f, LlamaConfig, ViTConfig, llama3_tokenizer()), llama3_row, "<|eot_id|>", {}
    ),
    "paligemma2": Twin(lambda f: make_paligemma(f, Gemma2Config), paligemma_row, "<eos>", {"token_type_ids": 1}),
    "paligemma": Twin(lambda f: make_paligemma(f, GemmaConfig), paligemma_row, "<eos>", {"token_type_ids": 1}),
    "smol-clip": Twin(make_fast_vlm, chatml_row, "<|im_end|>", {}),
}
every_family = pytest.mark.parametrize("twin", list(TWINS), indirect=True)
"""Runs a test once for each twin, whose folder, base, features and engine the fixtures then give."""
