"""Training before a federation: the embedded base from scratch, or any base by a recipe, stage by stage."""

import shutil
from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dashboard import Dashboard
from flows.gone import HOOKS
from flows.losses import TABLE, show_losses, write_losses
from flows.outside import dataset_content
from flows.prepare import ingested, prepare_questions, prepares
from flows.progress import Steps, log_unused_columns
from tasks.engine.identity import choose_model, find_record
from tasks.features.step import see_images
from tasks.ingest.step import ingest
from tasks.partition.step import partition, take_cases
from tasks.pretrain.step import pretrain_text, pretrain_tower, train_stage
from tasks.records import EpochLoss, read_table
from tasks.records.federation import LibrarySources
from tasks.retrieve.step import build_hospital_library
from tasks.settings import DatasetSettings, Lesson, LibrarySettings, ModelSettings, PartitionSettings, Study
from tasks.settings.recipe import Recipe
from tasks.store import MANIFEST, Ref, writing
from tasks.store.checkpoints import checkpoints_every
from tasks.text.wording import counted

NAMED = ("left", "small", "x-ray")

# From yes and no alone, an untrained model learns nothing for thousands of steps, so open questions come first. A
# comparison is the exclusive or of the value shown and the value named, which gives no gradient at the start. So a
# lesson names only one value of each pair, and "yes" means the left side, the small size or the x-ray. Questions about
# sides need this lesson twice, then a mixture that still favours that value before an even one, or the model loses them
# again. Both make the model forget open answers. The last lesson restores them, and teaches it to use context: findings
# have other names there, which it must read from the retrieved cases.
LESSONS = (
    Lesson(title="open questions", kind="open", epochs=2, learning_rate=2e-3),
    Lesson(title="one value named", kind="closed", naming=NAMED, epochs=3, learning_rate=1.5e-3),
    Lesson(title="all questions", learning_rate=1.5e-3),
    Lesson(title="with retrieved cases", shown=3, share=0.6, learning_rate=1e-3),
    Lesson(title="one value named again", kind="closed", naming=NAMED, epochs=2, learning_rate=1e-3),
    Lesson(title="mostly one value named", kind="closed", naming=NAMED, others=0.35, epochs=2, learning_rate=1e-3),
    Lesson(title="names told by the cases", shown=3, renamed=0.5, share=0.8, learning_rate=1.5e-3),
)


@flow(name="pretrain", task_runner=ThreadPoolTaskRunner(max_workers=1), **HOOKS)  # type: ignore[arg-type]
def pretrain(out: Path = Path("artifacts/base"), images: int = 8000, epochs: int = 9, seed: int = 0) -> str:
    """Train the vision tower, then the text model; every stage is cached as in a study.

    Returns `out`, an ordinary Hugging Face folder that can be set as `model.name`.
    """
    steps = Steps("pretrain-progress", total=4 + len(LESSONS))
    dataset = ingest(settings=DatasetSettings(name="phantom-public", images=images), content="", seed=seed)
    assignment = partition(cases=dataset, settings=PartitionSettings(hospitals=1, scheme="iid"), seed=seed)
    cases = take_cases(hospital="hospital-1", cases=dataset, dataset=dataset, assignment=assignment)
    steps.done(f"drew {counted(images, 'public images')}")
    tower = pretrain_tower(dataset=dataset, epochs=epochs, seed=seed)
    steps.done("trained the tower")
    model = choose_model(ModelSettings(name=str(tower.folder), device="cpu"))
    features = see_images(images=dataset.only("images.parquet"), model=model)
    steps.done("computed the tower's features")
    sources = LibrarySources(name="hospital-1", cases=cases, features=features)
    library = build_hospital_library(hospital=sources, settings=LibrarySettings(depth=3))
    steps.done("found the neighbours of every case")
    base = tower
    for lesson in LESSONS:
        base = pretrain_text(dataset=dataset, base=base, features=features, library=library, lesson=lesson, seed=seed)
        steps.done(f"taught {lesson.title}")
    shutil.copytree(base.folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    return str(out)


@flow(name="recipe", task_runner=ThreadPoolTaskRunner(max_workers=1), **HOOKS)  # type: ignore[arg-type]
def train_recipe(recipe: Recipe) -> str:
    """Train a base in the recipe's stages, each from the result of the previous one; stages are cached as in a study.

    Returns `artifacts/recipes/NAME`: the last stage's base, an ordinary Hugging Face folder that can be set as
    `model.name`, plus `losses.parquet`, `losses.png`, `recipe.json`, and the record of its training images,
    `seen.parquet`. Raises StudyError if a setting does not fit the model or the data, before any training.
    """
    model = choose_model(recipe.model)
    _check_targets(recipe)
    studies = [_study(recipe, number) for number in range(len(recipe.stages))]
    steps = Steps("recipe-progress", total=sum(map(prepares, studies)) + 2 * len(recipe.stages) + 1)
    inputs = [_ask(study, steps) for study in studies]
    rows: list[EpochLoss] = []
    dashboard = Dashboard()
    for number, (stage, (dataset, questions)) in enumerate(zip(recipe.stages, inputs, strict=True)):
        images = dataset.only("images.parquet")
        frozen = stage.sides == ("text",)
        _, record = find_record(model.name) or ("", "")
        features = see_images(images=images, model=model.seeing) if frozen else None
        with checkpoints_every(recipe.checkpoint_minutes):
            trained = train_stage(
                questions=questions,
                dataset=dataset,
                features=features,
                model=model,
                settings=stage,
                record=record,
                number=number + 1,
                seed=recipe.seed,
            )
        rows += read_table(trained.folder / TABLE, EpochLoss)
        show_losses(dashboard, f"{recipe.name}-losses", rows)
        loss = trained.manifest()["summary"]["held_out_loss"]
        steps.done(f"{stage.title}: held-out loss {loss['before']:.4f} before, {loss['merged']:.4f} after")
        model = choose_model(model.model_copy(update={"name": str(trained.folder), "revision": None}))
    with writing("", "recipes", recipe.name) as folder:
        shutil.copytree(trained.folder, folder.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        write_losses(folder, rows)
        folder.write_json("recipe.json", recipe.model_dump(mode="json"))
    steps.done(f"wrote {folder.ref.folder}")
    return str(folder.ref.folder)


def _check_targets(recipe: Recipe) -> None:
    """Raise StudyError if any stage names layers that the model lacks, before the first stage trains."""
    from tasks.engine.layers import check_layers

    targets = [
        (side, names, f"stages.{number}.{side}_targets")
        for number, stage in enumerate(recipe.stages)
        for side, names in stage.targets.items()
    ]
    check_layers(recipe.model.name, recipe.model.revision, targets)


def _study(recipe: Recipe, number: int) -> Study:
    """A study with the dataset and questions of one stage."""
    dataset, synthesis = recipe.questions(number)
    return Study(dataset=dataset, synthesis=synthesis, seed=recipe.seed)


def _ask(study: Study, steps: Steps) -> tuple[Ref, Ref]:
    """Read a stage's dataset and prepare its questions; both are the same folder if no questions are made."""
    dataset = ingest(settings=study.dataset, content=dataset_content(study.dataset), seed=study.seed)
    log_unused_columns(dataset)
    questions = prepare_questions(study, dataset, steps)
    steps.done(f"{study.dataset.label}: {ingested(dataset)}")
    return dataset, questions
