"""The pretraining steps: the bases embedded and radiology, one stage of a recipe, and the LLaVA-Med twin."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.pretrain.lessons import choose, rename_some, split_at_random
from tasks.records import (
    Caption,
    Case,
    EpochLoss,
    Finding,
    Image,
    Neighbour,
    SeenImage,
    read_images,
    read_table,
    schema,
    write_table,
)
from tasks.records.federation import TrainingData
from tasks.settings import ContextSettings, Lesson, ModelChoice
from tasks.settings.recipe import Stage as RecipeStage
from tasks.store import Ref, derived_seed
from tasks.store.checkpoints import Checkpoint
from tasks.store.leaving import Files, OfPublicData, Table
from tasks.store.shipped import DATA
from tasks.store.stage import Folder, stage

if TYPE_CHECKING:
    from tasks.engine.base import Base
    from tasks.engine.prompt import Prompt
    from tasks.engine.vision import Features

GLOSSARY = DATA / "glossary.txt"
"""The stages that read it list it in `reads`, so that it counts as part of their code."""
BASE: Files = {
    **dict.fromkeys(("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"), OfPublicData()),
    "seen.parquet": Table(schema(SeenImage)),
    "losses.parquet": Table(schema(EpochLoss)),
}
"""A base as a Hugging Face folder, the record of its training images, and losses: all of public data."""
PUBLIC = "source"
"""The area of their checkpoints, which follow from public data alone."""
VOCABULARY = 2048
EDGE, WIDTH, DEPTH = 84, 128, 4


@stage("tower", area="shared", reads=("data/glossary.txt",), leaves=(), writes=BASE)
def pretrain_tower(folder: Folder, dataset: Ref, epochs: int, seed: int) -> None:
    """A base with a tower trained on direct labels and an untrained text model."""
    from tasks.pretrain.blank import blank_base, train_tokenizer
    from tasks.pretrain.tower import label_images, train_tower

    cases = read_table(dataset.folder / "cases.parquet", Case)
    images = read_table(dataset.folder / "images.parquet", Image)
    findings = read_table(dataset.folder / "findings.parquet", Finding)
    texts = [text for case in cases for text in (case.question, case.answer)]
    texts += [caption.text for caption in read_table(dataset.folder / "captions.parquet", Caption)]
    # Words of real radiology and of the chat format must also become few tokens.
    texts += 3 * GLOSSARY.read_text(encoding="utf-8").split("\n")
    texts += 50 * ["system\nYou are a helpful assistant.\nuser\n", "assistant\n"]
    base = blank_base(train_tokenizer(texts, VOCABULARY), EDGE, WIDTH, DEPTH, seed)
    labels = label_images(images, cases, findings)
    folder.summary = train_tower(base, images, labels, epochs=epochs, batch_size=64, learning_rate=1.5e-3, seed=seed)
    _save(base, folder)


@stage(
    "base",
    area="shared",
    title="lesson: {lesson.title}",
    leaves=(),
    writes=BASE,
)
def pretrain_text(
    folder: Folder, dataset: Ref, base: Ref, features: Ref, library: Ref, lesson: Lesson, seed: int
) -> None:
    """The base after one lesson for its text model; the tower and its features do not change."""
    from tasks.engine.base import load_base
    from tasks.engine.batch import encode
    from tasks.engine.prompt import build_prompts
    from tasks.engine.vision import FEATURES, load_features
    from tasks.pretrain.text import train_text

    cases = read_table(dataset.folder / "cases.parquet", Case)
    findings = read_table(dataset.folder / "findings.parquet", Finding)
    neighbours = read_table(library.folder / "neighbours.parquet", Neighbour)
    vision = load_features(features.folder / FEATURES)
    learner = load_base(str(base.folder), device="cpu")
    split = split_at_random(choose(cases, lesson, seed), lesson.shown + 1, seed)
    prompts = [prompt for k, part in split for prompt in build_prompts(part, cases, neighbours, ContextSettings(k=k))]
    prompts = rename_some(prompts, findings, lesson, seed)
    examples = encode(learner, vision, prompts)
    learner.model.train()
    folder.summary["loss"] = train_text(
        learner,
        vision,
        examples,
        epochs=lesson.epochs,
        batch_size=64,
        learning_rate=lesson.learning_rate,
        seed=seed,
        title=lesson.title,
        checkpoint=Checkpoint(folder, PUBLIC),
    )
    _save(learner, folder)


@stage(
    "stage",
    area="shared",
    title="stage {number}: {settings.title}",
    leaves=(),
    writes=BASE,
)
def train_stage(
    folder: Folder,
    questions: Ref,
    dataset: Ref,
    features: Ref | None,
    model: ModelChoice,
    settings: RecipeStage,
    record: str,
    number: int,
    seed: int,
) -> None:
    """The base after one stage of a recipe, with LoRA merged: a Hugging Face folder, its record and `losses.parquet`.

    `features` are cached features, given if only the text model learns. `record` is the digest of the record of the
    base that the stage begins with; "" if it has none.
    """
    from tasks.cases.seen import read_seen
    from tasks.engine.identity import RECORD, resolve
    from tasks.engine.shared import exclusive_base
    from tasks.pretrain.stage import cases_of, train_sides

    images = dataset.folder / "images.parquet"
    training, held_out = cases_of(read_table(questions.folder / "cases.parquet", Case), settings, seed)
    before = read_seen(Path(resolve(model.name)) / RECORD) if record else []
    _write_record(folder, [(dataset, [*training, *held_out])], before)  # held-out images choose the epoch: seen too
    source = features.folder if features else images
    with exclusive_base(model) as base:
        rows, folder.summary["held_out_loss"] = train_sides(
            base, training, held_out, source, settings, derived_seed(seed, number), Checkpoint(folder, PUBLIC)
        )
        _save(base, folder)
    with folder.open("losses.parquet") as sink:
        write_table(sink, EpochLoss, rows)
    folder.summary |= {"cases": len(training), "held_out_cases": len(held_out)}


@stage("radiology", area="shared", title="compose radiology", leaves=(), writes=BASE)
def compose_radiology(folder: Folder, datasets: list[Ref], model: ModelChoice) -> None:
    """The untrained base `radiology` around the text model of `model`, with words of the training cases."""
    from tasks.engine.shared import exclusive_base
    from tasks.pretrain.radiology import compose

    cases = [case for dataset in datasets for case in _training(dataset)]
    with exclusive_base(model) as base:
        compose(base, (text for case in cases for text in (case.question, case.answer)), folder.path)


@stage("varied", area="source", title="features of altered copies")
def see_varied_images(folder: Folder, dataset: Ref, model: ModelChoice, copies: int, seed: int) -> None:
    """What the tower makes of altered copies of the training images."""
    from tasks.engine.shared import shared_base
    from tasks.engine.vision import FEATURES, see, write_features
    from tasks.pretrain.varied import varied

    wanted = {case.image_id for case in _training(dataset)}
    images = (image for image in read_images(dataset.folder / "images.parquet") if image.id in wanted)
    with shared_base(model) as base:
        seen = see(base, varied(images, copies, seed), total=copies * len(wanted), projected=False)
        write_features(folder.path / FEATURES, seen, base.family.merge(base.config), False)


@stage("base", area="shared", title="teach radiology", leaves=(), writes=BASE)
def teach_radiology(
    folder: Folder, data: list[TrainingData], model: ModelChoice, copies: int, epochs: int, left_out: float, seed: int
) -> None:
    """The base after its projector and text model have learned the training questions, about images and copies.

    Its record holds the images that it learned, without the altered copies. It does not learn the share `left_out` of
    each dataset's training images.
    """
    import torch

    from tasks.engine.batch import encode
    from tasks.engine.shared import exclusive_base
    from tasks.engine.vision import FEATURES, gather_features, load_features
    from tasks.pretrain.radiology import learned, prompts_of
    from tasks.pretrain.text import train_text

    prompts: list[Prompt] = []
    known: dict[str, tuple[Features, str]] = {}
    lessons = [learned(_training(each.dataset), left_out) for each in data]
    for each, cases in zip(data, lessons, strict=True):
        neighbours = read_table(each.library.folder / "neighbours.parquet", Neighbour)
        prompts += prompts_of(cases, neighbours, copies, seed)
        for part in (load_features(ref.folder / FEATURES) for ref in (each.features, each.varied)):
            known |= {name: (part, name) for name in part.starts}
    vision = gather_features(known)
    _write_record(folder, [(each.dataset, cases) for each, cases in zip(data, lessons, strict=True)])
    with exclusive_base(model) as base:
        folder.summary["loss"] = train_text(
            base,
            vision,
            encode(base, vision, prompts),
            epochs=epochs,
            batch_size=96,
            learning_rate=1.5e-3,
            seed=seed,
            title="radiology",
            projector=True,
            by_image=True,
            checkpoint=Checkpoint(folder, PUBLIC),
        )
        base.model.to(torch.bfloat16)  # half the size; a CPU computes it in float32 again
        _save(base, folder)


def _write_record(
    folder: Folder, trained: Sequence[tuple[Ref, Sequence[Case]]], before: Sequence[SeenImage] = ()
) -> None:
    """Write the record of a base: the images of the cases that it learns from, by dataset, and what it saw before."""
    from tasks.cases.seen import join, seen_images
    from tasks.engine.identity import RECORD

    rows = [
        seen_images(read_images(dataset.folder / "images.parquet"), {case.image_id: case.dataset for case in cases})
        for dataset, cases in trained
    ]
    with folder.open(RECORD) as sink:
        write_table(sink, SeenImage, join(before, *rows))


def _training(dataset: Ref) -> list[Case]:
    return [case for case in read_table(dataset.folder / "cases.parquet", Case) if case.split == "train"]


def _save(base: "Base", folder: Folder) -> None:
    """Write the base as an ordinary Hugging Face folder."""
    from tasks.engine.written import write_base

    write_base(folder.path, base.model.eval(), base.tokenizer, base.image_processor)


@stage(
    "twin",
    area="shared",
    reads=("data/glossary.txt",),
    title="twin of {of}",
    leaves=(),
    writes=BASE,
)
def make_twin(folder: Folder, of: str, seed: int) -> None:
    """A small model with random weights that replaces the preset `of`, which is LLaVA-Med."""
    from tasks.pretrain.twin import write_twin

    write_twin(folder.path, 3 * GLOSSARY.read_text(encoding="utf-8").split("\n"), seed)
