"""The engine's own steps: vision features of a hospital's images, and the adapter that all start from."""

from tasks.records import Image, read_table
from tasks.settings import LoraSettings, ModelSettings
from tasks.step import Folder, stage
from tasks.store import Ref

# Torch and Transformers are imported where a stage really runs: a study found in the cache starts without them.


@stage("features", area="hospitals/{hospital}", code=["engine"], title="features {hospital}")
def compute_features(folder: Folder, hospital: str, cases: Ref, model: ModelSettings, content: str) -> None:
    """What the frozen tower makes of each of a hospital's images; `content` tells the model's files."""
    from tasks.engine.shared import shared_base
    from tasks.engine.vision import FEATURES, encode_images

    images = read_table(cases.folder / "images.parquet", Image)
    with shared_base(model) as base:
        features = encode_images(base, images)
    folder.write(FEATURES, features.to_bytes())
    folder.summary = {"images": len(images), "tokens": len(features.rows), "width": features.rows.shape[1]}


@stage("adapter", area="shared", code=["engine"], title="initial adapter")
def initial_adapter(folder: Folder, model: ModelSettings, lora: LoraSettings, content: str, seed: int) -> None:
    """The adapter that every hospital starts from; it leaves the base's answers unchanged."""
    from tasks.engine.adapter import adapter_files
    from tasks.engine.shared import shared_engine
    from tasks.store import derived_seed

    with shared_engine(model, lora) as engine:
        files = adapter_files(engine.initial_state(derived_seed(seed, "adapter")), engine.config, model.name)
    for name, data in files.items():
        folder.write(name, data)
