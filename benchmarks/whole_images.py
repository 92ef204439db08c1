"""Training steps of whole images, whose questions share the image's tokens, against steps of single cases.

    python -m benchmarks.whole_images

The base is `radiology`, with 49 tokens for an image; the drawn hospital of the other benchmarks has its questions, none
with retrieved cases. Features are computed before. Both ways must give the same loss before anything is timed.
"""

import torch

from benchmarks.figure import Figure
from benchmarks.workload import (
    FEDERATION,
    IMAGES,
    LORA,
    SEED,
    check_close,
    drawn_state,
    in_turn,
    rate,
    spread,
)
from tasks.engine.base import load_base
from tasks.engine.batch import Example, collate, encode
from tasks.engine.engine import Engine
from tasks.engine.fast.tree import collate_rows, rows_by_beginning
from tasks.engine.loss import answer_loss
from tasks.engine.prompt import build_prompt
from tasks.engine.train import train
from tasks.engine.vision import Features, encode_images
from tasks.ingest import phantom

REPEATS = 3


def measure() -> Figure:
    """Samples by second of both."""
    source = phantom.read(images=IMAGES, seed=SEED, public=False, test_fraction=0.2)
    cases = [case for case in source.cases if case.site == "site-1" and case.split == "train"]
    engine = Engine(load_base("radiology", device="cpu"), LORA.r, LORA.alpha, 0.0, LORA.targets)
    wanted = {case.image_id for case in cases}
    features = encode_images(engine.base, [image for image in source.images if image.id in wanted])
    examples = encode(engine.base, features, [build_prompt(case, ()) for case in cases])
    checked = check(engine, features, examples)

    def epoch(by_image: bool) -> None:
        engine.switch(drawn_state(engine))
        train(
            engine,
            features,
            examples,
            epochs=1,
            batch_size=FEDERATION.batch_size,
            tokens=FEDERATION.tokens_per_pass,
            learning_rate=FEDERATION.learning_rate,
            seed=SEED,
            by_image=by_image,
        )

    ways = {"whole images": lambda: epoch(True), "single cases": lambda: epoch(False)}
    seconds = in_turn(ways, REPEATS, "whole_images")
    return Figure(
        "whole_images",
        rate(len(examples), seconds["whole images"]),
        rate(len(examples), seconds["single cases"]),
        target=None,
        unit="samples/s",
        notes={
            "cases": len(examples),
            "images": len(wanted),
            "spread": spread(seconds["whole images"], seconds["single cases"]),
            "difference of the losses": checked,
        },
    )


@torch.no_grad()
def check(engine: Engine, features: Features, examples: list[Example]) -> float:
    """The difference between the mean losses of both ways; StudyError where they disagree."""
    engine.switch(drawn_state(engine))
    rows = rows_by_beginning(engine.base, examples, torch.Generator().manual_seed(SEED))
    ordered = [example for row in rows for example in row]
    one = answer_loss(engine.base, collate_rows(engine.base, features, rows))
    return check_close("losses", one, answer_loss(engine.base, collate(engine.base, features, ordered)), within=1e-4)


if __name__ == "__main__":
    print(measure())
