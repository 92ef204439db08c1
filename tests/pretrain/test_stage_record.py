"""A recipe's stage writes which images it trained on, joins what its base had seen, and goes on where it broke off."""

import shutil
from pathlib import Path

import pytest
from engine_samples import IMAGES, case
from interrupted import breaking_off, steps_of

from tasks.cases.seen import find_seen, join, read_seen, seen_images
from tasks.engine.identity import RECORD, choose_model, find_record
from tasks.pretrain.step import train_stage
from tasks.records import Caption, Case, Image, SeenImage, write_table
from tasks.settings import ModelSettings
from tasks.settings.recipe import Stage
from tasks.store import ROOT, Ref, writing
from tasks.store.checkpoints import checkpoints_every

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


def trained(dataset: Ref, base: Path, number: int, settings: Stage = STAGE) -> Ref:
    """The folder of a stage that begins with a base, as `train_recipe` calls it."""
    _, record = find_record(str(base)) or ("", "")
    return train_stage.fn(
        questions=dataset,
        dataset=dataset,
        features=None,
        model=choose_model(ModelSettings(name=str(base), device="cpu")),
        settings=settings,
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


def test_a_stage_that_was_broken_off_goes_on_to_the_same_base(dataset: Ref, tiny_folder: Path) -> None:
    settings, found = STAGE.model_copy(update={"batch_size": 1, "epochs": 2}), list[Ref]()
    with checkpoints_every(None):
        steps = steps_of(lambda: found.append(trained(dataset, tiny_folder, 1, settings)))
    with checkpoints_every(0):
        with breaking_off(3):
            trained(dataset, tiny_folder, 1, settings)
        key = found[0].path.rsplit("/", 1)[1]
        assert (ROOT / "source/checkpoint" / key / "training.safetensors").exists()
        assert steps_of(lambda: found.append(trained(dataset, tiny_folder, 1, settings))) == steps - 2 > 1
    assert found[1] == found[0]
    assert not list((ROOT / "source/checkpoint").iterdir())
