"""The memory that a process holds round after round of training on real images, each in a thread as stages are.

    python -m benchmarks.memory_growth SLAKE

The base is `smol-clip` (`fed-rag compose smol-clip`) in bfloat16, with 16 tokens an image, LoRA of rank 16 on all
linear layers and its projector, in steps of whole images: some from SLAKE's folder in each round. Prints what the
process holds after each, and its peak.
"""

import sys
from pathlib import Path
from threading import Thread

import psutil

from tasks.engine.batch import encode
from tasks.engine.identity import choose_model
from tasks.engine.prompt import build_prompt
from tasks.engine.shared import shared_engine
from tasks.engine.train import train
from tasks.engine.vision import encode_images
from tasks.ingest import slake
from tasks.records import Case, Image
from tasks.settings import LoraSettings, ModelSettings
from tasks.store import peak_memory

ROUNDS = 4
IMAGES = 14
"""Of each round: they make about ten steps."""
MODEL = ModelSettings(name="smol-clip", device="cpu", precision="bfloat16", image_tokens=16)
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = LoraSettings(r=16, alpha=32, dropout=0.0, targets=LINEAR, projector=True)


def main(folder: Path) -> None:
    """Train the rounds, and tell of each."""
    source = slake.read(folder, language="en")
    cases = [case for case in source.cases if case.split == "train"]
    names = list(dict.fromkeys(case.image_id for case in cases))
    for number in range(ROUNDS):
        wanted = set(names[number * IMAGES : (number + 1) * IMAGES])
        images = [image for image in source.images if image.id in wanted]
        worker = Thread(target=one_round, args=([case for case in cases if case.image_id in wanted], images, number))
        worker.start()
        worker.join()
        held = psutil.Process().memory_info().rss
        print(f"round {number + 1}: holds {held / 1e9:.2f} GB, peak {peak_memory() / 1e9:.2f} GB", flush=True)


def one_round(cases: list[Case], images: list[Image], number: int) -> None:
    """What a hospital does in a round: see its images, train on its cases."""
    with shared_engine(choose_model(MODEL), LORA) as engine:
        engine.switch(engine.initial_state(0))
        features = encode_images(engine.base, images, projected=False)
        train(
            engine,
            features,
            encode(engine.base, features, [build_prompt(each, ()) for each in cases]),
            epochs=1,
            batch_size=16,
            tokens=2048,
            learning_rate=1e-3,
            seed=number,
            by_image=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
