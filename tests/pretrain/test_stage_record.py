"""A recipe's stage writes which images it trained on, and joins what its base had seen before."""

import shutil
from pathlib import Path

import pytest
from engine_samples import IMAGES, case

from tasks.cases.seen import find_seen, join, read_seen, seen_images
from tasks.engine.identity import RECORD, choose_model, find_record
from tasks.pretrain.step import train_stage
from tasks.records import Caption, Case, Image, SeenImage, write_table
from tasks.settings import ModelSettings
from tasks.settings.recipe import Stage
from tasks.store import Ref, writing

STAGE = Stage(title="toy", sides=("projector",), epochs=1, holdout=0.4, batch_size=4)
CASES = [case(n, f"image-{n % 4}", "What?", "yes", "test" if n % 4 == 3 else "train") for n in range(8)]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ref:
    """Questions about three training images, one of them held out, and about a test image."""
    monkeypatch.chdir(tmp_path)
    with writing("source", "ingest", "0") as folder:
        for file, record, rows in (("cases", Case, CASES), ("images", Image, IMAGES), ("captions", Caption, [])):
            with folder.open(f"{file}.parquet") as sink:
                write_table(sink, record, rows)  # type: ignore[type-var]
    return folder.ref


def trained(dataset: Ref, base: Path, number: int) -> Ref:
    """The folder of a stage that begins with a base, as `train_recipe` calls it."""
    _, record = find_record(str(base)) or ("", "")
    return train_stage.fn(
        questions=dataset,
        dataset=dataset,
        features=None,
        model=choose_model(ModelSettings(name=str(base), device="cpu")),
        settings=STAGE,
        record=record,
        number=number,
        seed=0,
    )


def test_a_stage_writes_its_training_images_and_joins_those_of_its_base(
    dataset: Ref, tiny_folder: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    first = trained(dataset, base, 1)
    assert find_seen(IMAGES, read_seen(first.folder / RECORD)) == dict.fromkeys(
        ("image-0", "image-1", "image-2"), "identical"
    )
    assert {row.dataset for row in read_seen(first.folder / RECORD)} == {"toy"}
    again = trained(dataset, first.folder, 2)
    assert read_seen(again.folder / RECORD) == read_seen(first.folder / RECORD)
    earlier = join(seen_images(IMAGES[5:], {"image-5": "public"}))
    with (base / RECORD).open("wb") as sink:
        write_table(sink, SeenImage, earlier)
    joined = trained(dataset, base, 1)
    assert joined.path != first.path
    assert read_seen(joined.folder / RECORD) == join(earlier, read_seen(first.folder / RECORD))
    weights = [(each.folder / "model.safetensors").read_bytes() for each in (first, joined)]
    assert weights[0] == weights[1]
