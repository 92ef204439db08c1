"""Asks a hospital's questions again with each perturbation of their prompts."""

from collections.abc import Sequence
from pathlib import Path

from tasks.answer.perturb import perturb, stand_ins
from tasks.answer.predictions import answered
from tasks.engine.adapter import load_state
from tasks.engine.batch import encode
from tasks.engine.generate import generate
from tasks.engine.hospital import Hospital
from tasks.engine.mixture import mixing
from tasks.engine.prompt import build_prompt, build_queries
from tasks.engine.shared import shared_engine
from tasks.engine.vision import encode_images, gather_features
from tasks.records import Case, Prediction, read_images
from tasks.settings import AnsweringSettings, ContextSettings, LoraSettings, ModelChoice


def answer_perturbed(
    hospital_data: Hospital,
    hospital: str,
    images: Path,
    test: Sequence[Case],
    adapter: Path,
    model: ModelChoice,
    lora: LoraSettings,
    answering: AnsweringSettings,
    context: ContextSettings,
    seed: int,
) -> list[Prediction]:
    """Answer some test cases with each perturbation; its name is the prediction's `configuration`.

    `images` is the hospital's table of images, from which blank and noise images are made. `adapter` is a PEFT folder.
    """
    if not test:
        return []
    queries = build_queries(test, hospital_data.prompts(test, context), hospital_data.cases, hospital_data.neighbours)
    changed = perturb(queries, hospital_data.cases, seed)
    prompts = {
        name: [build_prompt(each.case, each.retrieved, each.similarities, context) for each in rows]
        for name, rows in changed.items()
    }
    wanted = {case.image_id for case in test}
    seen = {case.image_id for rows in changed.values() for each in rows for case in (each.case, *each.retrieved)}
    with shared_engine(model, lora) as engine:
        engine.switch(load_state(adapter))
        stood_in = stand_ins((image for image in read_images(images) if image.id in wanted), seed)
        features = hospital_data.seen_by(engine)
        others = encode_images(engine.base, stood_in, projected=features.projected)
        stored = sorted(seen - others.starts.keys())
        features = features.fixed(stored)
        places = {image_id: (features, image_id) for image_id in stored}
        together = gather_features(places | {image_id: (others, image_id) for image_id in others.starts})
        every = [prompt for rows in prompts.values() for prompt in rows]
        answers = iter(
            generate(
                engine,
                together,
                encode(engine.base, together, every),
                tokens=answering.tokens_per_pass,
                max_new_tokens=answering.max_new_tokens,
                title=f"reliance {hospital}",
                mixing=mixing(engine.base, every, hospital_data.mixture),
            )
        )
    return [
        row
        for name, rows in changed.items()
        for row in answered(name, hospital, [each.case for each in rows], prompts[name], [next(answers) for _ in rows])
    ]
