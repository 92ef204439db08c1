"""One stage of a recipe: choose its cases, train the sides of the base that it names, and report the losses."""

from collections.abc import Sequence
from pathlib import Path

from tasks.cases.holdout import split_holdout
from tasks.engine.base import Base
from tasks.engine.batch import encode
from tasks.engine.pixels import keep_images
from tasks.engine.prompt import build_prompt
from tasks.engine.train import mean_loss
from tasks.engine.trainable import Trainable
from tasks.engine.vision import FEATURES, Features, load_features
from tasks.errors import StudyError
from tasks.pretrain.fit import fit
from tasks.records import Case, EpochLoss, read_images
from tasks.settings.recipe import Stage
from tasks.store.checkpoints import Checkpoint


def cases_of(cases: Sequence[Case], stage: Stage, seed: int) -> tuple[list[Case], list[Case]]:
    """Training and held-out cases of a stage, both from the training split.

    Raises StudyError if there are too few images to hold one out.
    """
    training, held_out = split_holdout(cases, stage.holdout, seed)
    if not held_out:
        images = len({case.image_id for case in training})
        raise StudyError(
            f"Expected stage {stage.title!r} to hold out at least one training image of its dataset, found {images} "
            f"images, of which a share of {stage.holdout} is none: take more, or raise the stage's holdout."
        )
    return training, held_out


def train_sides(
    base: Base,
    training: Sequence[Case],
    held_out: Sequence[Case],
    source: Path,
    stage: Stage,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> tuple[list[EpochLoss], dict[str, float | None]]:
    """Train the sides of the base that the stage names, in place, and merge the result.

    Args:
        base: a frozen base; it is changed.
        training: cases to train on, without context.
        held_out: cases for the loss that selects the best epoch.
        source: the table of their images, or the folder of their cached features if only the text model learns.
        stage: settings of the stage.
        seed: seed of all random choices.
        checkpoint: where the training goes on from, and is kept from time to time.

    Returns a row for each epoch, and the held-out loss before the stage, at its best epoch, and after the merge.
    """
    features = _features(base, source, {case.image_id for case in (*training, *held_out)})
    examples, held = (
        encode(base, features, [build_prompt(case, []) for case in cases]) for cases in (training, held_out)
    )
    trainable = Trainable(
        base,
        stage.targets,
        projector="projector" in stage.sides,
        r=stage.r,
        alpha=stage.alpha,
        dropout=stage.dropout,
        seed=seed,
    )
    before, _ = mean_loss(trainable, features, held, stage.tokens_per_pass)
    rows = fit(
        trainable,
        features,
        examples,
        held,
        epochs=stage.epochs,
        patience=stage.patience,
        batch_size=stage.batch_size,
        tokens=stage.tokens_per_pass,
        learning_rate=stage.learning_rate,
        seed=seed,
        title=stage.title,
        checkpoint=checkpoint,
    )
    trainable.merge()
    merged, _ = mean_loss(trainable, features, held, stage.tokens_per_pass)
    best = next(row for row in rows if row.kept)
    return rows, {"before": before, "best": best.held_out_loss, "merged": merged}


def _features(base: Base, source: Path, wanted: set[str]) -> Features:
    """Cached features, or the wanted images, whose features are computed again at each step."""
    if source.is_dir():
        return load_features(source / FEATURES)
    return keep_images(base, [image for image in read_images(source) if image.id in wanted])
