"""Training the embedded base from nothing, on the public part of phantom."""

import shutil
from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.progress import Steps
from tasks.engine.step import compute_features
from tasks.ingest.step import ingest
from tasks.partition.step import partition, take_cases
from tasks.pretrain.step import pretrain_text, pretrain_tower
from tasks.retrieve.step import build_hospital_library
from tasks.settings import DatasetSettings, Lesson, ModelSettings, PartitionSettings
from tasks.store import MANIFEST

NAMED = ("left", "small", "x-ray")

# Yes and no alone teach a blank model nothing for thousands of steps, so open questions come first. A comparison is
# the exclusive or of what is shown and what is named, which has no slope to start on: so one value alone is named of
# each pair, and "yes" means the left side, the small size or the x-ray. Sides need this twice, and a mixture that
# still favours that value before an even one, or they are lost again. Both sweep open answers away: the last lesson
# brings them back, and with them evidence, where findings under other names must be read from the retrieved cases.
LESSONS = (
    Lesson(title="open questions", kind="open", epochs=2, learning_rate=2e-3),
    Lesson(title="one value named", kind="closed", naming=NAMED, epochs=3, learning_rate=1.5e-3),
    Lesson(title="all questions", learning_rate=1.5e-3),
    Lesson(title="with retrieved cases", shown=3, share=0.6, learning_rate=1e-3),
    Lesson(title="one value named again", kind="closed", naming=NAMED, epochs=2, learning_rate=1e-3),
    Lesson(title="mostly one value named", kind="closed", naming=NAMED, others=0.35, epochs=2, learning_rate=1e-3),
    Lesson(title="names told by the cases", shown=3, renamed=0.5, share=0.8, learning_rate=1.5e-3),
)


@flow(name="pretrain", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def pretrain(out: Path = Path("artifacts/base"), images: int = 8000, epochs: int = 9, seed: int = 0) -> str:
    """Train tower and text model one after the other; every stage is cached like a study's.

    Returns `out`, an ordinary Hugging Face folder that `model.name` takes.
    """
    steps = Steps("pretrain-progress", total=4 + len(LESSONS))
    dataset = ingest(settings=DatasetSettings(name="phantom-public", images=images), content="", seed=seed)
    assignment = partition(cases=dataset, settings=PartitionSettings(hospitals=1, scheme="iid"), seed=seed)
    cases = take_cases(hospital="hospital-1", cases=dataset, dataset=dataset, assignment=assignment)
    steps.done(f"drew {images} public images")
    tower = pretrain_tower(dataset=dataset, epochs=epochs, seed=seed)
    steps.done("trained the tower")
    model = ModelSettings(name=str(tower.folder), device="cpu")
    features = compute_features(hospital="hospital-1", cases=cases, model=model, content=tower.digest)
    steps.done("computed the tower's features")
    library = build_hospital_library(
        hospital="hospital-1", cases=cases, features=features, image_weight=0.5, diversity=0.0, depth=3
    )
    steps.done("found the neighbours of every case")
    base = tower
    for lesson in LESSONS:
        base = pretrain_text(dataset=dataset, base=base, features=features, library=library, lesson=lesson, seed=seed)
        steps.done(f"taught {lesson.title}")
    shutil.copytree(base.folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    return str(out)
