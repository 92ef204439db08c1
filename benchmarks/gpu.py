"""Full-size models with random weights, trained on a CUDA device: samples/s, peak memory, model FLOP utilisation.

    python -m benchmarks.gpu

LightFED's Qwen2-VL-2B at 336 x 336 pixels, LLaVA-1.5 13B and LLaMA-CLIP 8B are made from their published sizes, in
bfloat16, without quantisation, layers computed again for their gradients. Eight hospitals train on prompts of three
retrieved cases, one after the other (`mapped`) and in one pass (`batched`). The tower runs once an image before that.

Model operations are those of the text model's linear layers, of attention and of the vocabulary at every token, forward
and backward through the frozen weights; layers that are computed again, and products that the engine saves, are not
counted in or out. Utilisation is against what `torch.matmul` reaches here on large matrices in bfloat16, not against a
data sheet. Without a CUDA device nothing is measured, and the reason is printed.
"""

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    Qwen2VLConfig,
    ViTConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.workload import FEDERATION, LORA, RETRIEVAL, SEED
from tasks.engine.base import Base, compute_again, load_base
from tasks.engine.batch import Example
from tasks.engine.engine import Engine
from tasks.engine.fast.stacked import TrainingHospital, train_stacked
from tasks.engine.train import train
from tasks.engine.vision import Features, encode_images
from tasks.ingest.phantom_images import png
from tasks.records import Image

HOSPITALS = 8
CASES = 16
"""Of each hospital: one optimiser step."""
WORDS, ANSWER = 24, 4
"""Tokens of text for each image of a prompt, and of the answer."""
TOKENS = 4096
"""Of one pass."""
EDGE = 8192
"""Of the square matrices that show what the device can do."""


@dataclass(frozen=True)
class Model:
    """A published size."""

    name: str
    config: Callable[[], Any]
    image_processor: Callable[[], Any]
    pixels: int
    """Edge of an image."""
    gigabytes: float
    """What training may take."""


@dataclass(frozen=True)
class Run:
    """What one way of training came to."""

    samples_per_second: float
    peak_gigabytes: float
    utilisation: float


def qwen2_vl_2b() -> Any:
    """Qwen/Qwen2-VL-2B-Instruct."""
    text = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "vocab_size": 151936}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    vision = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 1536}
    return Qwen2VLConfig(
        text_config=text | heads | {"rope_parameters": rotary}, vision_config=vision, tie_word_embeddings=True
    )


def llava_13b() -> Any:
    """llava-hf/llava-1.5-13b-hf: CLIP ViT-L/14 at 336 pixels before Vicuna 13B."""
    tower = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**tower, image_size=336, patch_size=14),
        text_config=LlamaConfig(**text, num_key_value_heads=40, vocab_size=32064),
        image_token_index=32000,
    )


def llama_clip_8b() -> Any:
    """BiomedCLIP's ViT-B/16 before LLaMA-3 8B, as `llama_clip.compose` puts them together."""
    text = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    return LlavaConfig(
        vision_config=ViTConfig(image_size=224, patch_size=16),
        text_config=LlamaConfig(**text, num_key_value_heads=8, vocab_size=128257),
        image_token_index=128256,
    )


def clip_processor(edge: int) -> Callable[[], Any]:
    """Images of one size."""
    crop = {"height": edge, "width": edge}
    return lambda: CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size=crop)


MODELS = (
    Model(
        "Qwen2-VL-2B",
        qwen2_vl_2b,
        lambda: Qwen2VLImageProcessorPil(size={"shortest_edge": 336 * 336 // 4, "longest_edge": 336 * 336}),
        336,
        8,
    ),
    Model("LLaVA-1.5 13B", llava_13b, clip_processor(336), 336, 40),
    Model("LLaMA-CLIP 8B", llama_clip_8b, clip_processor(224), 224, 40),
)


def make_base(model: Model, device: str) -> Base:
    """The model with random weights, drawn on the device; the embedded base's tokenizer pads its batches."""
    config = model.config()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        made = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    made.requires_grad_(False).eval()
    compute_again(made)
    tokenizer = load_base("embedded", device="cpu").tokenizer
    return Base(made, tokenizer, model.image_processor(), config.image_token_id)


def make_hospitals(base: Base, edge: int, hospitals: int, cases: int) -> list[TrainingHospital]:
    """Hospitals with random images, words and answers; each case shows its own image and three of the others."""
    rng = np.random.default_rng(SEED)
    count = RETRIEVAL.most + 1
    made = []
    for seed in range(hospitals):
        images = [Image(f"{n}", noise(rng, edge), edge, edge) for n in range(count)]
        features = encode_images(base, images, batch_size=count)
        examples = [make_example(rng, base, features, [image.id for image in images]) for _ in range(cases)]
        made.append(TrainingHospital(features, examples, seed))
    return made


def noise(rng: np.random.Generator, edge: int) -> bytes:
    """A gray image file."""
    return png(rng.integers(0, 256, (edge, edge), dtype=np.uint8))


def make_example(rng: np.random.Generator, base: Base, features: Features, image_ids: list[str]) -> Example:
    """A prompt in which each image is followed by some words, and its answer."""
    words = iter(rng.integers(20, 1000, (len(image_ids) + 1, WORDS)).tolist())
    prompt = next(words)
    for image_id in image_ids:
        prompt = [*prompt, *[base.image_token_id] * features.tokens(image_id), *next(words)]
    return Example(tuple(prompt), tuple(rng.integers(20, 1000, ANSWER).tolist()), tuple(image_ids))


def model_operations(config: Any, length: int) -> int:
    """Floating-point operations of training on one row of so many tokens: forward, and gradients of activations.

    The weights are frozen, so that backward is as much as forward in linear layers; in attention it is twice.
    """
    text = config.get_text_config()
    width, layers = text.hidden_size, text.num_hidden_layers
    head = getattr(text, "head_dim", None) or width // text.num_attention_heads
    queries, keys = head * text.num_attention_heads, head * text.num_key_value_heads
    linear = layers * (2 * width * queries + 2 * width * keys + 3 * width * text.intermediate_size)
    linear += width * text.vocab_size
    attention = layers * 2 * 2 * length * length * queries
    return 2 * 2 * linear * length + 3 * attention


def best_rate(device: str, edge: int) -> float:
    """Operations by second of `torch.matmul` on large square matrices in the base's dtype."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    one, other = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    seconds = min(timed(lambda: torch.matmul(one, other), device) for _ in range(10))
    return 2 * edge**3 / seconds


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds until the device has done it."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure(model: Model, device: str, hospitals: int, cases: int, best: float) -> dict[str, Run]:
    """Both ways of training; the first step of each is not timed."""
    base = make_base(model, device)
    trained = make_hospitals(base, model.pixels, hospitals, cases)
    engine = Engine(base, LORA.r, LORA.alpha, LORA.dropout, LORA.targets)
    start = engine.initial_state(SEED)
    settings: dict[str, Any] = {
        "epochs": 1,
        "batch_size": FEDERATION.batch_size,
        "tokens": TOKENS,
        "learning_rate": FEDERATION.learning_rate,
    }

    def mapped() -> None:
        for hospital in trained:
            engine.switch(start)
            train(engine, hospital.features, hospital.examples, seed=hospital.seed, **settings)

    def batched() -> None:
        engine.switch(start)
        train_stacked(engine, trained, **settings)

    operations = sum(model_operations(base.config, len(each)) for hospital in trained for each in hospital.examples)
    found = {}
    for name, way in (("mapped", mapped), ("batched", batched)):
        way()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(way, device)
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else float("nan")
        found[name] = Run(hospitals * cases / seconds, peak, operations / seconds / best)
    return found


def main() -> None:
    """Print a table, or why there is none."""
    console = Console()
    if not torch.cuda.is_available():
        console.print("benchmarks.gpu: not measured, this machine has no CUDA device.")
        return
    console.print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    best = best_rate("cuda", EDGE)
    table = Table("model", "executor", "samples/s", "peak GB", "may take", "utilisation")
    for model in MODELS:
        try:
            runs = measure(model, "cuda", HOSPITALS, CASES, best)
        except torch.OutOfMemoryError as error:
            console.print(f"{model.name}: out of memory: {str(error).splitlines()[0]}")
            continue
        for name, run in runs.items():
            numbers = (f"{run.samples_per_second:.2f}", f"{run.peak_gigabytes:.1f}", f"{model.gigabytes:g}")
            table.add_row(model.name, name, *numbers, f"{run.utilisation:.1%}")
        gc.collect()  # the model and its wrapper hold each other
        torch.cuda.empty_cache()
    console.print(f"torch.matmul: {best / 1e12:.0f} TFLOP/s on {EDGE} x {EDGE} matrices in bfloat16")
    console.print(table)


if __name__ == "__main__":
    main()
