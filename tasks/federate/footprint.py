"""Measures the memory of training: one hospital trains for one epoch in a separate process.

`python -m tasks.federate.footprint` reads one JSON document from standard input and writes another to standard output.
The process is separate because peak memory is per process: one that had trained other models would report theirs too.
"""

import json
import sys
from typing import Any

from tasks.cases.holdout import split_holdout
from tasks.engine.hospital import open_hospital
from tasks.engine.shared import shared_engine
from tasks.engine.train import train
from tasks.records.federation import HospitalRefs
from tasks.settings import ContextSettings, FederationSettings, LoraSettings, ModelChoice
from tasks.store import peak_memory


def footprint(request: dict[str, Any]) -> dict[str, int | None]:
    """Train one hospital for one epoch, and return the peak memory of this process and of its GPU, in bytes.

    Args:
        request: references of the `hospital`, settings `model`, `lora`, `federation` and `context`, and `seed`.
    """
    import torch

    model, lora = ModelChoice(**request["model"]), LoraSettings(**request["lora"])
    federation = FederationSettings(**request["federation"])
    hospital_data = open_hospital(HospitalRefs(**request["hospital"]))
    training, _ = split_holdout(hospital_data.cases, federation.holdout, federation.held_out_by(request["seed"]))
    with shared_engine(model, lora) as engine:
        engine.switch(engine.initial_state(request["seed"]))
        train(
            engine,
            hospital_data.seen_by(engine),
            hospital_data.examples(engine.base, training, ContextSettings(**request["context"])),
            epochs=1,
            batch_size=federation.batch_size,
            by_image=federation.by_image,
            tokens=federation.tokens_per_pass,
            learning_rate=federation.learning_rate,
            seed=request["seed"],
            title="measuring memory",
        )
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"peak_memory_bytes": peak_memory(), "device_memory_bytes": device}


if __name__ == "__main__":
    json.dump(footprint(json.load(sys.stdin)), sys.stdout)
