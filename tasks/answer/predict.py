"""Answers a hospital's prompts with an adapter."""

from collections.abc import Sequence
from pathlib import Path

from tasks.engine.adapter import load_state
from tasks.engine.batch import encode
from tasks.engine.generate import Answer, generate
from tasks.engine.hospital import Hospital
from tasks.engine.mixture import mixing
from tasks.engine.prompt import Prompt
from tasks.engine.shared import shared_engine
from tasks.settings import AnsweringSettings, LoraSettings, ModelChoice


def answer_prompts(
    hospital_data: Hospital,
    prompts: Sequence[Prompt],
    adapter: Path,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    title: str,
) -> list[Answer]:
    """Answer some of a hospital's prompts, in order, with the adapter in a PEFT folder.

    Raises StudyError if the adapter does not fit the base.
    """
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(adapter))
        return generate(
            engine,
            hospital_data.seen_by(engine),
            encode(engine.base, hospital_data.features, prompts),
            tokens=answering.tokens_per_pass,
            max_new_tokens=answering.max_new_tokens,
            title=title,
            mixing=mixing(engine.base, prompts, hospital_data.mixture),
        )
