"""Switching adapters against a plain copy of their bytes, and against the ways that PEFT offers.

    python -m benchmarks.switch_vs_copy

Hospitals' adapters, each in memory of its own, are switched on in turn. The plain copy is one `memcpy` of as many
bytes that lie in one piece, from as many places. PEFT's ways are `set_peft_model_state_dict`, `set_adapter` (which
needs every hospital's adapter in the model) and making the PEFT model anew. All but the copy must leave the model with
the same adapter.

The adapter is of the shapes that it has on Qwen2-VL-2B, LightFED's model (28 layers, width 1536, q and v); the model
around it has random weights and is narrow where no adapter is. On the embedded model, whose adapter is 76 times
smaller, the notes say what is left: a switch has fixed costs.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from peft import set_peft_model_state_dict
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from benchmarks.figure import Figure
from benchmarks.workload import LORA, check_close, drawn_state
from tasks.engine.adapter import State
from tasks.engine.base import Base, load_base
from tasks.engine.engine import Engine

HOSPITALS = 16
REPEATS = 400
SLOW = 8
"""Repeats of what takes milliseconds or more."""


def measure() -> Figure:
    """Microseconds of a switch and of a copy."""
    embedded = load_base("embedded", device="cpu")
    base = wide_base(embedded)
    engine = make_engine(base)
    states = [drawn_state(engine) for _ in range(HOSPITALS)]
    switch, copy = switch_and_copy(engine, states)
    small = make_engine(embedded)
    small_switch, small_copy = switch_and_copy(small, [drawn_state(small) for _ in range(HOSPITALS)])
    return Figure(
        "switch_vs_copy",
        switch,
        copy,
        target=2,
        unit="µs",
        at_most=True,
        notes={
            "bytes": size(states[0]),
            "tensors": len(states[0]),
            **peft_ways(engine, states),
            "embedded": {"bytes": size(small.read()), "µs": small_switch, "µs of a copy": small_copy},
        },
    )


def wide_base(embedded: Base) -> Base:
    """A model with Qwen2-VL-2B's layers where adapters are, and next to nothing elsewhere."""
    text: dict[str, Any] = {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    }
    text |= {"intermediate_size": 64, "vocab_size": len(embedded.tokenizer), "bos_token_id": None, "eos_token_id": 2}
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    vision = {"depth": 1, "embed_dim": 64, "num_heads": 2, "hidden_size": 1536}
    config = Qwen2VLConfig(text_config=text | {"rope_parameters": rotary}, vision_config=vision)
    model = Qwen2VLForConditionalGeneration(config).requires_grad_(False).eval()
    return Base(model, embedded.tokenizer, embedded.image_processor, embedded.image_token_id)


def make_engine(base: Base) -> Engine:
    """An engine with a study's default adapter."""
    return Engine(base, LORA.r, LORA.alpha, LORA.dropout, LORA.targets)


def switch_and_copy(engine: Engine, states: Sequence[State]) -> tuple[float, float]:
    """Microseconds of each, at the median of turns in which one follows the other."""
    flat = [flatten(state).numpy() for state in states]
    target = np.empty_like(flat[0])
    ways = {
        "switch": lambda turn: engine.switch(states[turn % len(states)]),
        "copy": lambda turn: np.copyto(target, flat[turn % len(flat)]),
    }
    found = microseconds(ways, REPEATS)
    check_close("adapters", flatten(engine.read()), torch.from_numpy(target), within=0)
    return found["switch"], found["copy"]


def peft_ways(engine: Engine, states: Sequence[State]) -> dict[str, float]:
    """Microseconds of each of PEFT's ways."""
    ways = {"µs of set_peft_model_state_dict": lambda turn: set_peft_model_state_dict(engine.peft, states[turn])}
    found = microseconds(ways, SLOW)
    check_close("adapters", flatten(engine.read()), flatten(states[SLOW - 1]), within=0)

    made = [engine]

    def rebuild(turn: int) -> None:
        made[-1].peft.unload()
        made.append(make_engine(engine.base))
        made[-1].switch(states[turn])

    found |= microseconds({"µs of making the PEFT model anew": rebuild}, SLOW)
    check_close("adapters", flatten(made[-1].read()), flatten(states[SLOW - 1]), within=0)
    peft, names = made[-1].peft, ("default", "other")
    peft.add_adapter("other", engine.config)
    return found | microseconds({"µs of set_adapter": lambda turn: peft.set_adapter(names[turn % 2])}, SLOW)


def microseconds(ways: Mapping[str, Callable[[int], object]], repeats: int) -> dict[str, float]:
    """Of each way, at the median; each is given the number of the turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way(turn)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e6 * statistics.median(each) for name, each in seconds.items()}


def flatten(state: State) -> torch.Tensor:
    """All its numbers in one piece, in the order of the names."""
    return torch.cat([state[name].flatten() for name in sorted(state)])


def size(state: State) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in state.values())


if __name__ == "__main__":
    print(measure())
