"""Training the base `radiology`: what reads real images, of parts that were trained before and public questions."""

import shutil
from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.gone import HOOKS
from flows.outside import dataset_content
from flows.prepare import ingested
from flows.progress import Steps
from tasks.engine.identity import choose_model
from tasks.features.step import see_images
from tasks.ingest.step import ingest
from tasks.partition.step import partition, take_cases
from tasks.pretrain.step import compose_radiology, see_varied_images, teach_radiology
from tasks.records.federation import LibrarySources, TrainingData
from tasks.retrieve.step import build_hospital_library
from tasks.settings import DatasetSettings, LibrarySettings, ModelChoice, ModelSettings, PartitionSettings
from tasks.store import MANIFEST, Ref

LEFT_OUT = 0.12
"""Share of the training images that the base does not learn unless told otherwise: hospitals choose by these."""


@flow(name="radiology", task_runner=ThreadPoolTaskRunner(max_workers=1), **HOOKS)  # type: ignore[arg-type]
def pretrain_radiology(
    slake: Path,
    vqa_rad: Path,
    out: Path = Path("artifacts/radiology"),
    copies: int = 5,
    epochs: int = 4,
    left_out: float = LEFT_OUT,
    seed: int = 0,
) -> str:
    """Compose the base and teach it the training questions of SLAKE (English) and VQA-RAD; stages are cached.

    Validation and test splits are not used. Returns `out`, an ordinary Hugging Face folder.

    Args:
        slake: folder of SLAKE.
        vqa_rad: folder of VQA-RAD.
        out: receives the base.
        copies: altered copies of each training image.
        epochs: passes over all questions, about each image and each of its copies.
        left_out: share of each dataset's training images that the base does not learn.
        seed: every random choice follows from it.
    """
    steps = Steps("radiology-progress", total=7)
    datasets = [
        _ingested(DatasetSettings(name="slake", root=slake, test="validation"), seed, steps),
        _ingested(DatasetSettings(name="vqa-rad", root=vqa_rad), seed, steps),
    ]
    composed = compose_radiology(datasets=datasets, model=choose_model(ModelSettings(device="cpu")))
    model = choose_model(ModelSettings(name=str(composed.folder), device="cpu"))
    steps.done("composed the untrained base")
    data = [_looked_at(dataset, model, copies, seed, steps) for dataset in datasets]
    base = teach_radiology(data=data, model=model, copies=copies, epochs=epochs, left_out=left_out, seed=seed)
    steps.done("taught projector and text model")
    shutil.copytree(base.folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    return str(out)


def _ingested(settings: DatasetSettings, seed: int, steps: Steps) -> Ref:
    dataset = ingest(settings=settings, content=dataset_content(settings), seed=seed)
    steps.done(f"{settings.label}: {ingested(dataset)}")
    return dataset


def _looked_at(dataset: Ref, model: ModelChoice, copies: int, seed: int, steps: Steps) -> TrainingData:
    """What the tower makes of a dataset's images and of altered copies, and each case's neighbours."""
    assignment = partition(cases=dataset, settings=PartitionSettings(hospitals=1, scheme="iid"), seed=seed)
    cases = take_cases(hospital="hospital-1", cases=dataset, dataset=dataset, assignment=assignment)
    features = see_images(images=dataset.only("images.parquet"), model=model, projected=False)
    varied = see_varied_images(dataset=dataset, model=model, copies=copies, seed=seed)
    sources = LibrarySources(name="hospital-1", cases=cases, features=features)
    library = build_hospital_library(hospital=sources, settings=LibrarySettings(depth=3))
    steps.done("computed the tower's features of images and altered copies")
    return TrainingData(dataset=dataset, features=features, varied=varied, library=library)
