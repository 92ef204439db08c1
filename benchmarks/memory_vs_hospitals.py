"""Peak memory of a federated round, by how many hospitals take part.

    python -m benchmarks.memory_vs_hospitals

Each number of hospitals runs in a process of its own, which calls the stages of a round as the flow does: every
hospital trains from the global adapter, the updates are averaged, every hospital validates the mean. The hospitals are
drawn and their features computed before, in another process. All have the same number of images.
"""

import os
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.base import find
from benchmarks.figure import Figure, alone
from benchmarks.workload import FEDERATION, LORA, RETRIEVAL, SEED
from tasks.engine.base import load_base
from tasks.engine.identity import choose_model
from tasks.engine.vision import FEATURES, encode_images
from tasks.federate.step import aggregate, initial_adapter, train_hospital, validate_hospital
from tasks.ingest import phantom
from tasks.records import Case, Neighbour, write_table
from tasks.records.federation import HospitalRefs
from tasks.settings import LocalRule, ModelSettings
from tasks.store import Ref, peak_memory, writing

HOSPITALS = (2, 8, 32, 64)
IMAGES = 8
"""Of each hospital."""
MODEL = choose_model(ModelSettings(name="embedded", device="cpu"))

Hospital = dict[str, Ref]


def measure() -> Figure:
    """Peak megabytes with the most hospitals and with the fewest."""
    peaks: dict[int, tuple[float, float]] = {}
    with TemporaryDirectory() as folder:
        hospitals = alone(prepare, folder, max(HOSPITALS))
        for count in HOSPITALS:
            peaks[count] = alone(peak_of_round, folder, hospitals[:count])
    most, fewest = (peaks[count][1] for count in (max(HOSPITALS), min(HOSPITALS)))
    return Figure(
        "memory_vs_hospitals",
        most,
        fewest,
        target=1.05,
        unit="MB",
        at_most=True,
        notes={
            "MB by hospitals": {count: round(peak, 1) for count, (_, peak) in peaks.items()},
            "MB more than the loaded model, by hospitals": {
                count: round(peak - loaded, 1) for count, (loaded, peak) in peaks.items()
            },
        },
    )


def prepare(folder: str, count: int) -> list[Hospital]:
    """Write what hospitals have before training: cases, neighbours, features."""
    os.chdir(folder)
    base = load_base(MODEL.name, device=MODEL.device)
    sites = len(phantom.SITES)
    source = phantom.read(images=-(-count // sites) * IMAGES, seed=SEED, public=False, test_fraction=0.2)
    found = []
    for number in range(count):
        images = source.images[number * IMAGES : (number + 1) * IMAGES]
        ids = {image.id for image in images}
        cases = [replace(case, split="train") for case in source.cases if case.image_id in ids]
        features = encode_images(base, images)
        with writing(f"hospitals/{number}", "cases", "0") as cases_folder, cases_folder.open("cases.parquet") as sink:
            write_table(sink, Case, cases)
        with writing(f"hospitals/{number}", "features", "0") as features_folder:
            features_folder.write(FEATURES, features.to_bytes())
        with writing(f"hospitals/{number}", "library", "0") as library, library.open("neighbours.parquet") as sink:
            write_table(sink, Neighbour, find(features, cases, cases))
        found.append({"cases": cases_folder.ref, "features": features_folder.ref, "library": library.ref})
    return found


def peak_of_round(folder: str, hospitals: list[Hospital]) -> tuple[float, float]:
    """Megabytes at the peak: once the first adapter is made on the loaded model, and after a round."""
    os.chdir(folder)
    adapter = initial_adapter.fn(model=MODEL, lora=LORA, seed=SEED)
    loaded = peak_memory() / 2**20
    common: dict[str, Any] = {
        "model": MODEL,
        "lora": LORA,
        "federation": FEDERATION,
        "context": RETRIEVAL.context,
        "round_number": 1,
        "seed": SEED,
    }
    named = [HospitalRefs(name=f"{number}", adapter=adapter, **each) for number, each in enumerate(hospitals)]
    updates = [train_hospital.fn(hospital=each, local=LocalRule(), **common) for each in named]
    mean = aggregate.fn(
        strategy=FEDERATION.server,
        state=adapter,
        hospitals=[each.name for each in named],
        updates=updates,
        round_number=1,
        base=MODEL.content,
        share=1,
        steps=FEDERATION.asked_steps,
        ranks={},
    )
    for each in named:
        validate_hospital.fn(hospital=each.given(mean), min_cell=1, **common)
    return loaded, peak_memory() / 2**20


if __name__ == "__main__":
    print(measure())
