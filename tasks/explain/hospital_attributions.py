"""Some of a hospital's answers explained."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.cases.sample import sample
from tasks.engine.adapter import load_state
from tasks.engine.hospital import Hospital
from tasks.engine.prompt import as_asked
from tasks.engine.shared import shared_engine
from tasks.explain.attribution import METHODS, Explanation, explain
from tasks.records import Case, Prediction, read_images
from tasks.settings import ContextSettings, LoraSettings, ModelChoice


def draw(cases: Sequence[Case], counts: Sequence[int], seed: int) -> list[Case]:
    """Some test cases at random: so many of them, so many of these, and so on.

    So what is explained is among what is asked with altered prompts, as far as both are drawn by the same counts.
    """
    test = [case for case in cases if case.split == "test"]
    for count in counts:
        test = sample(test, count, seed)
    return test


def explain_answers(
    own: Hospital,
    images: Path,
    chosen: Sequence[Case],
    answers: Iterable[Prediction],
    adapter: Path,
    model: ModelChoice,
    lora: LoraSettings,
    shown: ContextSettings,
    tokens: int,
) -> list[Explanation]:
    """Each chosen case's answer explained by every method, by the adapter in a PEFT folder.

    Args:
        own: the hospital.
        images: its `images.parquet`.
        chosen: some of its cases.
        answers: what was answered, to these among others.
        adapter: a PEFT folder.
        model: the base.
        lora: the adapter's shape.
        shown: what of the retrieved cases is shown.
        tokens: as in `explain`.
    """
    said = {row.case_id: row.prediction for row in answers}
    asked = as_asked(chosen, own.prompts(chosen, shown), own.cases, own.neighbours)
    wanted = {case.image_id for each in asked for case in (each.case, *each.shown)}
    pictures = {image.id: image for image in read_images(images) if image.id in wanted}
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(adapter))
        return [
            explain(engine.base, own.features, pictures, each, shown, said[each.case.id], METHODS, tokens=tokens)
            for each in asked
        ]
