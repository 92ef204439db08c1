"""Do saliency maps point at what an answer is known to depend on? A mark is planted that decides it.

    python -m benchmarks.shortcut

Half of the images get a bright square with a dark centre in one of their corners, and the answer to the one question
is yes where the mark is, else no. The embedded base learns that with an adapter, three times from other first weights.
Printed are, before and after and for each time, the share of right answers to images it has not seen, and how often
each method's map peaks on the mark, where there is one.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tasks.engine.base import load_base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.generate import generate
from tasks.engine.prompt import Query, build_prompt
from tasks.engine.train import train
from tasks.engine.vision import Features, encode_images
from tasks.explain.attribution import METHODS, explain
from tasks.explain.maps import coverage
from tasks.explain.quality import pointing
from tasks.ingest import phantom
from tasks.records import Case, Image
from tasks.records.pixels import to_rgb
from tasks.settings import ContextSettings

SEED, SEEDS = 11, (0, 1, 2)
"""Of the images and marks, and of the adapters."""
IMAGES, HELD_OUT = 400, 48
EDGE = 0.2
"""Side of the mark, as a share of the image's."""
EPOCHS = 10
"""Enough, with so many images, that the mark decides every answer to images that training has not seen."""
QUESTION = "Is this image normal?"


@dataclass(frozen=True)
class Planted:
    """Images of which some have the mark, and the question about each."""

    images: dict[str, Image]
    masks: dict[str, NDArray[np.bool_]]
    """Of the marked images, `(height, width)`: where the mark is."""
    train: list[Case]
    test: list[Case]


@dataclass(frozen=True)
class Rates:
    """How the test cases were answered and explained."""

    right: float
    """Share of right answers."""
    hits: Mapping[str, Sequence[tuple[float, float]]]
    """By method, of each marked image the pointing game's score and the level of chance."""


def plant() -> Planted:
    """The embedded dataset's images with marks, which have nothing to do with what else is in them."""
    rng = np.random.default_rng(SEED)
    images, masks, cases = dict[str, Image](), dict[str, np.ndarray](), list[Case]()
    for image in phantom.read(images=IMAGES // 4, seed=SEED, public=False, test_fraction=0.2).images:
        pixels = np.asarray(to_rgb(image.data)).copy()
        if marked := bool(rng.integers(2)):
            masks[image.id] = _mark(pixels, int(rng.integers(4)))
        sink = io.BytesIO()
        PIL.Image.fromarray(pixels).save(sink, "PNG")
        images[image.id] = Image(image.id, sink.getvalue(), image.width, image.height)
        split, answer = "test" if len(cases) < HELD_OUT else "train", "yes" if marked else "no"
        cases.append(Case(image.id, image.id, QUESTION, answer, "closed", split, "marks", "en"))  # type: ignore[arg-type]
    of = {split: [case for case in cases if case.split == split] for split in ("train", "test")}
    return Planted(images, masks, of["train"], of["test"])


def _mark(pixels: NDArray[np.uint8], corner: int) -> NDArray[np.bool_]:
    """Paint the mark into a corner; returns its mask."""
    edge = round(EDGE * min(pixels.shape[:2]))
    top, left = ((pixels.shape[axis] - edge) * (corner >> axis & 1) for axis in (0, 1))
    inner = slice(top + edge // 4, top + 3 * edge // 4), slice(left + edge // 4, left + 3 * edge // 4)
    mask = np.zeros(pixels.shape[:2], bool)
    mask[top : top + edge, left : left + edge] = True
    pixels[mask] = 255
    pixels[inner] = 0
    return mask


def learn(engine: Engine, features: Features, cases: Sequence[Case], seed: int) -> None:
    """Train the adapter on the question about each image."""
    examples = encode(engine.base, features, [build_prompt(case, []) for case in cases])
    options = {"epochs": EPOCHS, "batch_size": 16, "tokens": 8192, "learning_rate": 3e-3, "seed": seed}
    train(engine, features, examples, **options)  # type: ignore[arg-type]


def accuracy(engine: Engine, features: Features, cases: Sequence[Case]) -> float:
    """Share of right answers."""
    examples = encode(engine.base, features, [build_prompt(case, []) for case in cases])
    answers = generate(engine, features, examples, tokens=8192, max_new_tokens=4)
    return float(np.mean([answer.text == case.answer for answer, case in zip(answers, cases, strict=True)]))


def hits(
    engine: Engine, features: Features, planted: Planted, methods: Sequence[str] = METHODS
) -> dict[str, list[tuple[float, float]]]:
    """By method: of each marked image of the test cases, the pointing game's score and the level of chance."""
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for case in planted.test:
        if case.image_id in planted.masks:
            query, answer = Query(case, ()), case.answer
            explanation = explain(engine.base, features, planted.images, query, ContextSettings(k=0), answer, methods)
            for method in methods:
                each = explanation.map(method)
                weights = np.reshape(each.weights, (each.rows, each.columns))
                covered = coverage(planted.masks[case.image_id], each.rows, each.columns)
                found[method].append((pointing(weights, covered), pointing(np.ones_like(weights), covered)))
    return found


def open_engine(seed: int) -> Engine:
    """The embedded base with a fresh adapter."""
    engine = Engine(load_base("embedded", device="cpu"), 16, 32, 0.0, ["q_proj", "v_proj"])
    engine.switch(engine.initial_state(seed))
    return engine


def measure(planted: Planted, seed: int) -> tuple[Rates, Rates]:
    """Before and after an adapter has learned the mark; its first weights follow from the seed."""
    engine = open_engine(seed)
    features = encode_images(engine.base, list(planted.images.values()))
    before = Rates(accuracy(engine, features, planted.test), hits(engine, features, planted))
    learn(engine, features, planted.train, seed)
    return before, Rates(accuracy(engine, features, planted.test), hits(engine, features, planted))


def main() -> None:
    """Print how often maps point at the mark before and after the model has learned it."""
    planted = plant()
    Console(width=120).print(table([measure(planted, seed) for seed in SEEDS]))


def table(runs: Sequence[tuple[Rates, Rates]]) -> Table:
    """The share of right answers and each method's hits, a value for each seed."""
    printed = Table("", "before", "after", "chance")
    right = [[f"{each.right:.2f}" for each in column] for column in zip(*runs, strict=True)]
    printed.add_row("right answers", *map(", ".join, right), "")
    for method in METHODS:
        rates = [[np.mean(each.hits[method], axis=0) for each in column] for column in zip(*runs, strict=True)]
        cells = [", ".join(f"{rate:.2f}" for rate, _ in column) for column in rates]
        printed.add_row(f"{method} on the mark", *cells, f"{rates[0][0][1]:.2f}")
    return printed


if __name__ == "__main__":
    main()
