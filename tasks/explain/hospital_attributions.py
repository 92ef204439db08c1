"""Explains a sample of a hospital's answers."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.cases.sample import sample
from tasks.engine.adapter import load_state
from tasks.engine.hospital import Hospital
from tasks.engine.prompt import build_queries
from tasks.engine.shared import shared_engine
from tasks.explain.attribution import METHODS, Explanation, explain
from tasks.records import Case, Prediction, read_images
from tasks.settings import ContextSettings, LoraSettings, ModelChoice


def draw(cases: Sequence[Case], counts: Sequence[int], seed: int) -> list[Case]:
    """Sample test cases repeatedly: `counts[0]` of all, then `counts[1]` of those, and so on.

    Stages that begin with the same counts draw nested samples, so the explained cases are among the perturbed ones.
    """
    test = [case for case in cases if case.split == "test"]
    for count in counts:
        test = sample(test, count, seed)
    return test


def explain_answers(
    hospital_data: Hospital,
    images: Path,
    chosen: Sequence[Case],
    answers: Iterable[Prediction],
    adapter: Path,
    model: ModelChoice,
    lora: LoraSettings,
    context: ContextSettings,
    tokens: int,
) -> list[Explanation]:
    """Explain the answer to each chosen case by every method, with the adapter in a PEFT folder.

    Args:
        hospital_data: the hospital.
        images: its `images.parquet`.
        chosen: some of its cases.
        answers: answers to at least the chosen cases.
        adapter: a PEFT folder.
        model: the base.
        lora: the adapter's shape.
        context: what the prompt shows of the retrieved cases.
        tokens: as in `explain`.
    """
    said = {row.case_id: row.prediction for row in answers}
    queries = build_queries(
        chosen, hospital_data.prompts(chosen, context), hospital_data.cases, hospital_data.neighbours
    )
    wanted = {case.image_id for each in queries for case in (each.case, *each.retrieved)}
    pictures = {image.id: image for image in read_images(images) if image.id in wanted}
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(adapter))
        features = hospital_data.seen_by(engine).fixed(pictures)
        return [
            explain(engine.base, features, pictures, each, context, said[each.case.id], METHODS, tokens=tokens)
            for each in queries
        ]
