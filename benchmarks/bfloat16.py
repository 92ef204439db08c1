"""Training beside a base in bfloat16: LoRA and attention as the engine computes them, and as PEFT and transformers do.

    python -m benchmarks.bfloat16

The base is `smol-clip` (`fed-rag compose smol-clip`), with 16 tokens an image, LoRA of rank 16 on all linear layers,
and its projector, in steps of whole images. Both ways have the same base, adapter and batches. With the same weights,
their losses must agree within what bfloat16 keeps of a number. The notes also tell the rate in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.tuners.lora.layer import Linear

from benchmarks.figure import Figure
from benchmarks.workload import SEED, check_close, drawn_state, in_turn, rate, spread
from tasks.engine.base import load_base
from tasks.engine.batch import Example, encode
from tasks.engine.engine import Engine
from tasks.engine.fast.bfloat16 import ATTENTION, BFloat16Linear
from tasks.engine.fast.tree import collate_rows, rows_by_beginning
from tasks.engine.loss import answer_loss
from tasks.engine.prompt import build_prompt
from tasks.engine.train import train
from tasks.engine.vision import Features, encode_images
from tasks.ingest import phantom

REPEATS = 3
IMAGES = 24
TOKENS = 2048
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Lesson:
    """A drawn hospital's training cases, and an engine in one precision."""

    engine: Engine
    features: Features
    examples: list[Example]

    def epoch(self) -> None:
        """Train once on all cases, from a fresh adapter."""
        self.engine.switch(self.engine.initial_state(SEED))
        train(
            self.engine,
            self.features,
            self.examples,
            epochs=1,
            batch_size=16,
            tokens=TOKENS,
            learning_rate=1e-3,
            seed=SEED,
            by_image=True,
        )

    def loss(self) -> torch.Tensor:
        """That of an adapter whose B is not zero, computed as in training."""
        self.engine.switch(drawn_state(self.engine))
        alike = rows_by_beginning(self.engine.base, self.examples, torch.Generator().manual_seed(SEED))
        with torch.enable_grad():
            return answer_loss(self.engine.base, collate_rows(self.engine.base, self.features, alike[:4])).detach()

    @contextmanager
    def as_peft(self) -> Iterator[None]:
        """While open, with PEFT's layers and transformers' attention as they come."""
        layers: list[Any] = [each for each in self.engine.peft.modules() if type(each) is BFloat16Linear]
        text = self.engine.base.model.model.language_model
        for layer in layers:
            layer.__class__ = Linear
        text.set_attn_implementation("sdpa")
        try:
            yield
        finally:
            text.set_attn_implementation(ATTENTION)
            for layer in layers:
                layer.__class__ = BFloat16Linear


def lesson(precision: Literal["float32", "bfloat16"]) -> Lesson:
    """The same cases and adapter at every call."""
    source = phantom.read(images=IMAGES, seed=SEED, public=False, test_fraction=0.2)
    cases = [case for case in source.cases if case.site == "site-1" and case.split == "train"]
    base = load_base("smol-clip", device="cpu", precision=precision, image_tokens=16)
    engine = Engine(base, r=16, alpha=32, dropout=0.0, targets=TARGETS, projector=True)
    wanted = {case.image_id for case in cases}
    features = encode_images(base, [image for image in source.images if image.id in wanted], projected=False)
    return Lesson(engine, features, encode(base, features, [build_prompt(case, ()) for case in cases]))


def measure() -> Figure:
    """Samples by second of both."""
    narrow, wide = lesson("bfloat16"), lesson("float32")
    ours = narrow.loss()
    with narrow.as_peft():
        difference = check_close("losses", ours, narrow.loss(), within=0.05)

    def by_peft() -> None:
        with narrow.as_peft():
            narrow.epoch()

    ways = {"engine": narrow.epoch, "peft": by_peft, "float32": wide.epoch}
    seconds = in_turn(ways, REPEATS, "bfloat16")
    count = len(narrow.examples)
    return Figure(
        "bfloat16",
        rate(count, seconds["engine"]),
        rate(count, seconds["peft"]),
        target=None,
        unit="samples/s",
        notes={
            "cases": count,
            "samples/s in float32": rate(count, seconds["float32"]),
            "spread": spread(seconds["engine"], seconds["peft"]),
            "difference of the losses": difference,
        },
    )


if __name__ == "__main__":
    print(measure())
