"""The steps for vision features: those of a whole dataset, and those of each hospital."""

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from tasks.records import read_images
from tasks.records.federation import SeenBefore
from tasks.settings import ModelChoice
from tasks.store import Ref
from tasks.store.stage import Folder, stage

if TYPE_CHECKING:
    from tasks.engine.vision import Features

# Torch and Transformers are imported only when a stage runs: a cached study starts without them.


@stage("vision", area="source")
def see_images(
    folder: Folder, images: Ref, model: ModelChoice, projected: bool = True, before: SeenBefore | None = None
) -> None:
    """Compute the features of a dataset's images with the frozen tower and, unless it learns, the projector.

    They depend only on images and model. So the tower runs once per image, however studies partition the images and
    whatever else they change. With `before`, which has the same model's features, it runs over the images alone that
    are not among those; the summary tells how many were `reused`.
    """
    if before is None:
        _see(folder, images, model, projected)
    else:
        _see_new(folder, images, model, projected, before)


@stage("features", area="hospitals/{hospital}", title="features {hospital}")
def take_features(
    folder: Folder,
    hospital: str,
    cases: Ref,
    model: ModelChoice,
    seen: Ref | None = None,
    projected: bool = True,
) -> None:
    """The features of a hospital's images, copied bit by bit from those of the whole dataset in `seen`.

    Without `seen`, for data that was never in one place, the tower runs over the hospital's images.
    """
    if seen is None:
        _see(folder, cases, model, projected)
    else:
        _take(folder, cases, seen)


def _see(folder: Folder, images: Ref, model: ModelChoice, projected: bool) -> None:
    """Run the tower over a folder's images, with one batch in memory."""
    from tasks.engine.shared import shared_base
    from tasks.engine.vision import FEATURES, see, write_features

    table = images.folder / "images.parquet"
    with shared_base(model) as base:
        seen = see(base, read_images(table), total=pq.read_metadata(table).num_rows, projected=projected)
        _describe(folder, write_features(folder.path / FEATURES, seen, base.family.merge(base.config), projected))


def _see_new(folder: Folder, images: Ref, model: ModelChoice, projected: bool, before: SeenBefore) -> None:
    """Copy the features of images that were there before, byte by byte, and run the tower over the others."""
    from itertools import chain

    from tasks.engine.shared import shared_base
    from tasks.engine.vision import FEATURES, load_features, see, write_features
    from tasks.features.reuse import unchanged

    table, kept = images.folder / "images.parquet", load_features(before.features.folder / FEATURES)
    same = unchanged(read_images(table), read_images(before.images.folder / "images.parquet"))
    known = ((image, kept.of(image), kept.grid(image)) for image in same)
    new = (image for image in read_images(table) if image.id not in same)
    total = pq.read_metadata(table).num_rows - len(same)
    with shared_base(model) as base:
        seen = chain(known, see(base, new, total=total, projected=projected))
        _describe(folder, write_features(folder.path / FEATURES, seen, kept.merge, projected))
    folder.summary |= {"reused": len(same)}


def _take(folder: Folder, images: Ref, seen: Ref) -> None:
    """Copy the features of a folder's images, with one image in memory."""
    from tasks.engine.vision import FEATURES, load_features, write_features

    whole = load_features(seen.folder / FEATURES)
    wanted = pq.read_table(images.folder / "images.parquet", columns=["id"])["id"].to_pylist()
    rows = ((image_id, whole.of(image_id), whole.grids[image_id]) for image_id in wanted)
    _describe(folder, write_features(folder.path / FEATURES, rows, whole.merge, whole.projected))


def _describe(folder: Folder, features: "Features") -> None:
    rows = features.rows
    folder.summary = {"images": len(features.starts), "tokens": len(rows), "width": rows.shape[1]}
