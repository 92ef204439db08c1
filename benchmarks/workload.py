"""What the benchmarks share: a drawn hospital, inputs made from its pixels as others do, ways timed in turn."""

import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from tqdm import tqdm
from transformers import AutoModelForImageTextToText

from benchmarks.base import find
from tasks.engine.adapter import State
from tasks.engine.base import Base, load_base
from tasks.engine.batch import IGNORED, encode
from tasks.engine.engine import Engine
from tasks.engine.identity import resolve
from tasks.engine.prompt import Prompt, build_prompts
from tasks.engine.train import train
from tasks.engine.vision import encode_images
from tasks.errors import StudyError
from tasks.ingest import phantom
from tasks.records import Image
from tasks.records.pixels import to_rgb
from tasks.settings import EvaluationSettings, FederationSettings, LoraSettings, RetrievalSettings

LORA, FEDERATION, EVALUATION, RETRIEVAL = (
    LoraSettings(),
    FederationSettings(),
    EvaluationSettings(),
    RetrievalSettings(),
)
"""A study's defaults: adapter, batch size, learning rate, answer length, retrieved cases."""
EPOCHS = FEDERATION.rounds * FEDERATION.local_epochs
IMAGES = 40
SEED = 4
"""Of images that the base was not trained on: they are of the hospital part."""
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "pillow")


@dataclass(frozen=True)
class Work:
    """One hospital of the embedded dataset, its prompts with retrieved cases, and the embedded model."""

    engine: Engine
    plain: Any
    """The same model and adapter as transformers and PEFT make them: what the engine is held against."""
    images: dict[str, Image]
    train: list[Prompt]
    """A whole number of batches."""
    test: list[Prompt]


def draw_work(dropout: float = LORA.dropout, base: Base | None = None, most: int | None = None) -> Work:
    """The same hospital at every call, its retrieved cases found as a study finds them.

    Args:
        dropout: of LoRA.
        base: another one than the embedded.
        most: most cases for training, and for testing; all where not given.
    """
    source = phantom.read(images=IMAGES, seed=SEED, public=False, test_fraction=0.2)
    cases = [case for case in source.cases if case.site == "site-1"]
    images = {image.id: image for image in source.images if any(case.image_id == image.id for case in cases)}
    plain = (
        deepcopy(base.model)
        if base
        else AutoModelForImageTextToText.from_pretrained(resolve("embedded"), trust_remote_code=False)
    )
    base = base or load_base("embedded", device="cpu")
    engine = Engine(base, LORA.r, LORA.alpha, dropout, LORA.targets)
    training, held_out = ([case for case in cases if case.split == split] for split in ("train", "test"))
    features = encode_images(engine.base, list(images.values()))
    neighbours = find(features, training, cases)
    training, held_out = training[:most], held_out[:most]
    whole = len(training) // FEDERATION.batch_size * FEDERATION.batch_size
    train, test = (build_prompts(each, cases, neighbours, RETRIEVAL.context) for each in (training[:whole], held_out))
    return Work(engine, plain_model(engine, plain), images, train, test)


def embedded_model() -> Any:
    """The embedded model as transformers loads it."""
    return AutoModelForImageTextToText.from_pretrained(resolve("embedded"), trust_remote_code=False)


def plain_model(engine: Engine, model: Any) -> Any:
    """A model as a PEFT model that shares nothing with the engine's."""
    with warnings.catch_warnings():
        # PEFT reads a property that Transformers has renamed; its meaning is the same.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model.requires_grad_(False), engine.config).eval()


def drawn_state(engine: Engine, scale: float = 0.02) -> State:
    """An adapter whose B is not zero, so that a way that leaves it out gives other numbers."""
    generator = torch.Generator().manual_seed(SEED)
    state = engine.initial_state(SEED)
    return {name: tensor + scale * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


def from_pixels(base: Base, images: Mapping[str, Image], prompts: Sequence[Prompt], answers: bool) -> dict[str, Any]:
    """A batch as the model's processor makes it, with nothing kept from an earlier call.

    Images are decoded and preprocessed, the chat template is filled in, the text tokenised; `Qwen2VLProcessor` itself
    cannot be made without torchvision, which nothing else here needs. With `answers`, rows are padded on the right and
    have labels at the answers; without, they are padded on the left.
    """
    tokenizer, mark = base.tokenizer, base.tokenizer.convert_ids_to_tokens(base.image_token_id)
    pictures = [to_rgb(images[image_id].data) for prompt in prompts for image_id in prompt.image_ids]
    pixels = base.image_processor(images=pictures, return_tensors="pt")
    grids = pixels.get("image_grid_thw")  # Qwen2-VL's; elsewhere, every image has as many tokens
    if grids is None:
        sizes = iter([base.config.image_seq_length] * len(pictures))
    else:
        sizes = iter((grids.prod(-1) // base.image_processor.merge_size**2).tolist())
    texts = []
    for prompt in prompts:
        text = tokenizer.apply_chat_template(list(prompt.messages), tokenize=False, add_generation_prompt=True)
        first, *others = text.split(mark)
        texts.append(first + "".join(mark * next(sizes) + other for other in others))
    ends = [f"{prompt.answer}{tokenizer.eos_token}" if answers else "" for prompt in prompts]
    side = "right" if answers else "left"
    whole = [text + end for text, end in zip(texts, ends, strict=True)]
    tokens = tokenizer(whole, padding=True, padding_side=side, add_special_tokens=False, return_tensors="pt")
    ids = tokens["input_ids"]
    inputs = {**tokens, **pixels}
    if grids is not None:
        inputs["mm_token_type_ids"] = (ids == base.image_token_id).int()
    if answers:
        inputs["labels"] = torch.full_like(ids, IGNORED)
        for row, end in enumerate(ends):
            stop = int(tokens["attention_mask"][row].sum())
            start = stop - len(tokenizer(end, add_special_tokens=False)["input_ids"])
            inputs["labels"][row, start:stop] = ids[row, start:stop]
    return inputs


def train_as_a_study(work: Work, state: State, epochs: int = EPOCHS, by_image: bool = False) -> None:
    """Train as a study does, from image files and texts; nothing is left of an earlier call."""
    base = work.engine.base
    base.tokenised.clear()
    features = encode_images(base, list(work.images.values()))
    work.engine.switch(state)
    for seed in range(epochs):
        train(
            work.engine,
            features,
            encode(base, features, work.train),
            epochs=1,
            batch_size=FEDERATION.batch_size,
            tokens=FEDERATION.tokens_per_pass,
            learning_rate=FEDERATION.learning_rate,
            seed=seed,
            by_image=by_image,
        )


def in_turn(ways: Mapping[str, Callable[[], object]], repeats: int, title: str) -> dict[str, list[float]]:
    """Seconds of each way, timed one after the other, again and again: what disturbs one disturbs the others too."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(repeats), desc=title, unit="turn", leave=False, disable=None):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """The least and the largest of the ratios of single turns, theirs by ours."""
    ratios = [other / one for one, other in zip(ours, theirs, strict=True)]
    return min(ratios), max(ratios)


def check_close(what: str, one: torch.Tensor, other: torch.Tensor, within: float) -> float:
    """The largest difference. Raises StudyError where it is more than `within`: then the ways are not comparable."""
    difference = float((one - other).abs().max())
    if not difference <= within:
        raise StudyError(
            f"Expected the {what} of both ways to agree within {within:g}, found a difference of {difference:g}: "
            "the comparison would mean nothing; mend the way that is wrong."
        )
    return difference


def rate(count: int, seconds: Sequence[float]) -> float:
    """Things by second, at the median."""
    return count / statistics.median(seconds)


def machine() -> dict[str, Any]:
    """What figures depend on: processor, memory, threads, versions, and how busy the machine is."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _line(path: str, start: str) -> str | None:
    """What follows the colon in the first line of a file that starts so; None where the system has no such file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(start)), None)
