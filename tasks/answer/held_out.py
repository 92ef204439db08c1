"""A hospital's held-out cases under prompts with no, one, two and more retrieved cases, for `tune`."""

from collections.abc import Sequence
from pathlib import Path

from tasks.answer.tuning import HeldOut
from tasks.engine.adapter import load_state
from tasks.engine.batch import encode
from tasks.engine.hospital import Hospital
from tasks.engine.likelihood import answer_probabilities
from tasks.engine.mixture import memories
from tasks.engine.prompt import build_prompts
from tasks.engine.shared import shared_engine
from tasks.records import Case
from tasks.settings import AnsweringSettings, ContextSettings, LoraSettings, ModelChoice


def held_out_rows(
    hospital: Hospital,
    held_out: Sequence[Case],
    adapter: Path,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    how: ContextSettings,
) -> list[list[HeldOut]]:
    """For each held-out case, its prompts with 0, 1, 2, ... shown cases, and the adapter's probabilities of its answer.

    If k is not `auto`, the last of these prompts is the only one that is needed, and alone computed.
    """
    counts = range(how.most + 1) if how.k == "auto" else [how.most]
    by_count = [
        build_prompts(held_out, hospital.cases, hospital.neighbours, how.model_copy(update={"k": count}))
        for count in counts
    ]
    # A case with fewer neighbours has the same prompt again at a larger count.
    prompts = [list({prompt.retrieved_ids: prompt for prompt in row}.values()) for row in zip(*by_count, strict=True)]
    every = [prompt for row in prompts for prompt in row]
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(adapter))
        features = hospital.seen_by(engine)
        examples = encode(engine.base, features, every)
        likely = answer_probabilities(engine, features, examples, answering.tokens_per_pass, "tuning")
        behind = memories(engine.base, every)
    made = iter(
        HeldOut(example.answer_ids, tuple(each), memory)
        for example, each, memory in zip(examples, likely, behind, strict=True)
    )
    return [[next(made) for _ in row] for row in prompts]
