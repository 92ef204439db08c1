"""A federated round on real radiology, against the published loop and `Trainer`.

    python -m benchmarks.real_base SLAKE [BASE]

`SLAKE` is the folder of the published dataset, `BASE` a model of its own shape (`radiology`, or `smol-clip` once it is
composed). The cases are those of the first training images, without retrieved cases in the prompts, as in the study
`slake`; the engine trains in steps of whole images, as that study does. All three ways decode, preprocess and tokenise
within their time. Before anything is timed, the losses of single cases must agree with the loop's, and the adapter
after an epoch of single cases with Trainer's.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from transformers import AutoModelForImageTextToText

from benchmarks import train_vs_published_loop, train_vs_trainer
from benchmarks.busy import Watch, verdict
from benchmarks.figure import Figure, alone
from benchmarks.limit import limit
from benchmarks.workload import (
    FEDERATION,
    LORA,
    Work,
    drawn_state,
    in_turn,
    plain_model,
    rate,
    spread,
    train_as_a_study,
)
from tasks.engine.base import load_base
from tasks.engine.engine import Engine
from tasks.engine.identity import resolve
from tasks.engine.prompt import build_prompt
from tasks.ingest import slake

IMAGES, EPOCHS, REPEATS = 24, 2, 3
"""The study has two rounds, and computes features once."""
TARGET = 3.0
"""Of the ratio to Trainer."""


def measure(root: Path, name: str) -> Figure:
    """Samples by second of all three; the notes have the minutes of a round of all training cases."""
    checked = train_vs_trainer.check(real_work(root, name, dropout=0.0))
    work = real_work(root, name)
    state, ordered = drawn_state(work.engine), train_vs_trainer.in_batches(work, EPOCHS)
    losses = train_vs_published_loop.check(work, state)
    ways = {
        "engine": lambda: train_as_a_study(work, state, EPOCHS, by_image=True),
        "engine, single cases": lambda: train_as_a_study(work, state, EPOCHS),
        "trainer": lambda: train_vs_trainer.by_trainer(work, state, ordered, workers=0),
        "loop": lambda: train_vs_published_loop.by_loop(work, state, EPOCHS),
    }
    seconds = in_turn(ways, REPEATS, "real_base")
    count = EPOCHS * len(work.train)
    rates = {way: rate(count, each) for way, each in seconds.items()}
    whole = sum(case.split == "train" for case in slake.read(root, language="en").cases)
    return Figure(
        "real_base",
        rates["engine"],
        rates["trainer"],
        target=TARGET,
        ceiling=rate(count, [limit(ways["engine"])]) / rates["trainer"],
        unit="samples/s",
        notes={
            "base": name,
            "cases": len(work.train),
            "images": len(work.images),
            "samples/s": rates,
            "ratio to the loop": rates["engine"] / rates["loop"],
            "spread to the loop": spread(seconds["engine"], seconds["loop"]),
            "spread to Trainer": spread(seconds["engine"], seconds["trainer"]),
            "minutes of a round of all training cases": {way: whole / each / 60 for way, each in rates.items()},
            "largest difference of a case's loss": losses,
            "largest difference between the adapters": checked,
        },
    )


def real_work(root: Path, name: str, dropout: float = LORA.dropout) -> Work:
    """The cases of the first training images, a whole number of batches."""
    source = slake.read(root, language="en")
    training = [case for case in source.cases if case.split == "train"]
    chosen = set(list(dict.fromkeys(case.image_id for case in training))[:IMAGES])
    cases = [case for case in training if case.image_id in chosen]
    cases = cases[: len(cases) // FEDERATION.batch_size * FEDERATION.batch_size]
    used = {case.image_id for case in cases}
    engine = Engine(load_base(name, device="cpu"), LORA.r, LORA.alpha, dropout, LORA.targets)
    plain = AutoModelForImageTextToText.from_pretrained(resolve(name), dtype=torch.float32, trust_remote_code=False)
    images = {image.id: image for image in source.images if image.id in used}
    # A frozen tower's batch normalisation keeps its statistics, which whoever uses PEFT and Trainer has to see to.
    tower = plain.get_submodule(engine.base.family.tower).eval()
    tower.train = lambda mode=True: tower
    return Work(engine, plain_model(engine, plain), images, [build_prompt(case, ()) for case in cases], [])


def main() -> None:
    """Measure, and print the notes and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slake", type=Path, help="folder of SLAKE")
    parser.add_argument("base", nargs="?", default="radiology")
    given, watch, console = parser.parse_args(), Watch(), Console()
    figure = alone(measure, given.slake, given.base)
    console.print_json(data=dict(figure.notes))
    console.print(
        f"{figure.value:.1f} samples/s against Trainer's {figure.reference:.1f}: {figure.ratio:.2f} times, "
        f"{figure.reached or 0:.2f} of what products allow"
    )
    console.print(f"target: {TARGET:g}; met: {verdict(figure.met, watch.share())}")


if __name__ == "__main__":
    main()
