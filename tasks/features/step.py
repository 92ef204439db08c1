"""The engine's own steps: vision features of images, taken by their hospitals, and the adapter that all start from."""

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from tasks.records import read_images
from tasks.settings import ModelChoice
from tasks.store import Ref
from tasks.store.stage import Folder, stage

if TYPE_CHECKING:
    from tasks.engine.vision import Features

# Torch and Transformers are imported where a stage really runs: a study found in the cache starts without them.


@stage("vision", area="source")
def see_images(folder: Folder, images: Ref, model: ModelChoice, projected: bool = True) -> None:
    """What the frozen tower makes of each image of a dataset, and the projector too unless it learns.

    It follows from images and model alone: whatever else studies change, and however they deal images out, the tower
    runs once an image.
    """
    _see(folder, images, model, projected)


@stage("features", area="hospitals/{hospital}", title="features {hospital}")
def take_features(
    folder: Folder,
    hospital: str,
    cases: Ref,
    model: ModelChoice,
    seen: Ref | None = None,
    projected: bool = True,
) -> None:
    """The features of a hospital's images, bit by bit those in `seen`, which has them of the whole dataset.

    Without it, as where hospitals hold data that was never in one place, the tower runs over the hospital's images.
    """
    if seen is None:
        _see(folder, cases, model, projected)
    else:
        _take(folder, cases, seen)


def _see(folder: Folder, images: Ref, model: ModelChoice, projected: bool) -> None:
    """Run the tower over a folder's images, a batch of them in memory."""
    from tasks.engine.shared import shared_base
    from tasks.engine.vision import FEATURES, see, write_features

    table = images.folder / "images.parquet"
    with shared_base(model) as base:
        seen = see(base, read_images(table), total=pq.read_metadata(table).num_rows, projected=projected)
        _describe(folder, write_features(folder.path / FEATURES, seen, base.family.merge(base.config), projected))


def _take(folder: Folder, images: Ref, seen: Ref) -> None:
    """Copy a folder's images' features, an image in memory."""
    from tasks.engine.vision import FEATURES, load_features, write_features

    whole = load_features(seen.folder / FEATURES)
    wanted = pq.read_table(images.folder / "images.parquet", columns=["id"])["id"].to_pylist()
    rows = ((image_id, whole.of(image_id), whole.grids[image_id]) for image_id in wanted)
    _describe(folder, write_features(folder.path / FEATURES, rows, whole.merge, whole.projected))


def _describe(folder: Folder, features: "Features") -> None:
    rows = features.rows
    folder.summary = {"images": len(features.starts), "tokens": len(rows), "width": rows.shape[1]}
