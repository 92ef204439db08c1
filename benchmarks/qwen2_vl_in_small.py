"""Training and answering with a model of Qwen2-VL-2B's proportions, against the published loop and `generate`.

    python -m benchmarks.qwen2_vl_in_small

Its tower, text model and vocabulary stand to each other as in the 2B model: as many layers, each a sixth as wide, and a
sixth of the words. Images have 336 pixels a side and 144 tokens, prompts three retrieved cases, so four images. Weights
are random: the engine's losses and answers must be those of the common ways all the same.
"""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from peft import set_peft_model_state_dict
from transformers import Qwen2VLForConditionalGeneration

from benchmarks import evaluate_vs_one_by_one, train_vs_published_loop
from benchmarks.evaluate_vs_one_by_one import with_larger_images
from benchmarks.figure import Figure
from benchmarks.limit import limit
from benchmarks.workload import SEED, Work, draw_work, drawn_state, in_turn, rate, spread, train_as_a_study
from tasks.engine.adapter import State
from tasks.engine.base import Base, load_base
from tasks.engine.fast.onednn import use_the_faster
from tasks.engine.vision import encode_images

CASES, EPOCHS, REPEATS = 16, 2, 3
SIXTH: dict[str, dict[str, Any]] = {
    "text_config": {
        "hidden_size": 256,
        "intermediate_size": 1493,
        "num_hidden_layers": 28,
        "layer_types": ["full_attention"] * 28,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        "vocab_size": 25_323,
    },
    "vision_config": {"depth": 32, "embed_dim": 208, "num_heads": 4, "hidden_size": 256},
}
"""The 2B model has widths of 1,536 and 8,960, 28 layers, 12 heads of 128 with 2 of keys, and 151,936 words; its tower
has 32 layers of 1,280."""


def measure() -> Figure:
    """Samples by second of both ways of training; the notes have questions by second."""
    work = draw_work(base=in_small(), most=CASES)
    state = drawn_state(work.engine)
    checked = train_vs_published_loop.check(work, state)
    ways = {
        "engine": lambda: train_as_a_study(work, state, EPOCHS),
        "loop": lambda: train_vs_published_loop.by_loop(work, state, EPOCHS),
    }
    seconds = in_turn(ways, REPEATS, "training")
    count = EPOCHS * len(work.train)
    return Figure(
        "qwen2_vl_in_small",
        rate(count, seconds["engine"]),
        rate(count, seconds["loop"]),
        target=None,
        ceiling=rate(count, [limit(ways["engine"])]) / rate(count, seconds["loop"]),
        unit="samples/s",
        notes={
            "cases": len(work.train),
            "epochs": EPOCHS,
            "parameters in millions": parameters(work.engine.base),
            "spread": spread(seconds["engine"], seconds["loop"]),
            "largest difference of a case's loss": checked,
            "answering": answering(work, state),
        },
    )


def in_small() -> Base:
    """The model, with the embedded base's words and larger images."""
    embedded = load_base("embedded", device="cpu")
    config = deepcopy(embedded.config)
    for part, values in SIXTH.items():
        for name, value in values.items():
            setattr(getattr(config, part), name, value)
    torch.manual_seed(SEED)
    model = Qwen2VLForConditionalGeneration(config).requires_grad_(False).eval()
    use_the_faster(model)
    return replace(with_larger_images(embedded), model=model, tokenised={})


def parameters(base: Base) -> dict[str, float]:
    """Of the parts whose proportions are the 2B model's."""
    parts = {"tower": base.model.model.visual, "layers": base.model.model.language_model.layers}
    parts["words"] = base.model.model.language_model.embed_tokens
    return {name: sum(each.numel() for each in part.parameters()) / 1e6 for name, part in parts.items()}


def answering(work: Work, state: State) -> dict[str, object]:
    """Questions by second of the engine, which has the features or computes them, and of `generate` one by one."""
    work.engine.switch(state)
    set_peft_model_state_dict(work.plain, state)
    features = encode_images(work.engine.base, list(work.images.values()))
    different = evaluate_vs_one_by_one.check(work, features)
    ways = {
        "engine": lambda: evaluate_vs_one_by_one.by_engine(work, features),
        "with features": lambda: evaluate_vs_one_by_one.by_engine(work, evaluate_vs_one_by_one.features_of_test(work)),
        "one by one": lambda: evaluate_vs_one_by_one.one_by_one(work),
    }
    seconds = in_turn(ways, REPEATS, "answering")
    rates = {name: rate(len(work.test), each) for name, each in seconds.items()}
    ceiling = rate(len(work.test), [limit(ways["engine"])]) / rates["one by one"]
    return {
        "questions/s": rates,
        "ratio": rates["engine"] / rates["one by one"],
        "ratio with features computed": rates["with features"] / rates["one by one"],
        "largest ratio that products allow": ceiling,
        "spread": spread(seconds["engine"], seconds["one by one"]),
        "different answers": different,
    }


if __name__ == "__main__":
    print(measure())
