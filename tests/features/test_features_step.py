"""The tower runs once an image: whatever else a study changes, and however images are partitioned among hospitals."""

import gc
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CASES, IMAGES

from tasks.engine import shared
from tasks.engine.base import load_base
from tasks.engine.families.qwen_vl import QwenVL
from tasks.engine.identity import choose_model
from tasks.engine.vision import FEATURES, Features, encode_images, load_features, write_features
from tasks.errors import StudyError
from tasks.features.step import see_images, take_features
from tasks.partition.step import partition, take_cases
from tasks.records import Case, Finding, Image, write_table
from tasks.settings import ModelChoice, ModelSettings, PartitionSettings
from tasks.store import Ref, writing


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An artifacts folder of each test's own."""
    monkeypatch.chdir(tmp_path)
    yield
    shared._engine.clear()
    shared._base.clear()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each run of the tower was given."""
    found: list[int] = []
    real = QwenVL.see

    def noting(family: QwenVL, model: Any, pixels: Any) -> Any:
        seen = real(family, model, pixels)
        found.append(len(seen))
        return seen

    monkeypatch.setattr(QwenVL, "see", noting)
    return found


def dataset(key: str, cases: list[Case] = CASES, images: list[Image] = IMAGES) -> Ref:
    with writing("source", "ingest", key) as folder:
        with folder.open("cases.parquet") as sink:
            write_table(sink, Case, cases)
        with folder.open("images.parquet") as sink:
            write_table(sink, Image, images)
        with folder.open("findings.parquet") as sink:
            write_table(sink, Finding, [])
    return folder.ref


def partitioned(source: Ref, seen: Ref | None, sees: dict[str, Any], hospitals: int, seed: int) -> dict[str, Path]:
    """Each hospital's file, with the images partitioned by this seed."""
    assignment = partition.fn(cases=source, settings=PartitionSettings(hospitals=hospitals, scheme="iid"), seed=seed)
    features = {}
    for row in assignment.manifest()["summary"]["hospitals"]:
        cases = take_cases.fn(hospital=row["hospital"], cases=source, dataset=source, assignment=assignment)
        features[row["hospital"]] = take_features.fn(hospital=row["hospital"], cases=cases, seen=seen, **sees)
    return {hospital: ref.folder / FEATURES for hospital, ref in features.items()}


def test_however_images_are_partitioned_the_tower_runs_once(tiny_folder: Path, looked_at: list[int]) -> None:
    source = dataset("0")
    sees = {"model": choose_model(ModelSettings(name=str(tiny_folder), device="cpu"))}
    seen = see_images.fn(images=source.only("images.parquet"), **sees)
    assert looked_at == [len(IMAGES)]
    whole = load_features(seen.folder / FEATURES)
    for hospitals, seed in ((2, 0), (2, 1), (3, 0), (1, 0)):
        parts = [load_features(path) for path in partitioned(source, seen, sees, hospitals, seed).values()]
        assert sorted(name for each in parts for name in each.starts) == sorted(whole.starts)
        for features in parts:
            # A hospital's file holds its own images' features and no others.
            assert len(features.rows) == sum(map(features.tokens, features.starts))
            assert all(torch.equal(features.of(name), whole.of(name)) for name in features.starts)
            assert all(features.grids[name] == whole.grids[name] for name in features.starts)
    assert looked_at == [len(IMAGES)]


def test_a_hospital_whose_data_was_never_elsewhere_runs_the_tower_itself(
    tiny_folder: Path, looked_at: list[int]
) -> None:
    source = dataset("0")
    sees = {"model": choose_model(ModelSettings(name=str(tiny_folder), device="cpu"))}
    whole = load_features(see_images.fn(images=source.only("images.parquet"), **sees).folder / FEATURES)
    (only,) = partitioned(source, None, sees, 1, 0).values()
    # With the same images a batch, bit by bit; a batch of others moves the last bits.
    assert only.read_bytes() == encode_images(load_base(str(tiny_folder), device="cpu"), IMAGES).to_bytes()
    looked_at.clear()
    parts = [load_features(path) for path in partitioned(source, None, sees, 2, 0).values()]
    assert sum(looked_at) == len(IMAGES)
    for features in parts:
        for name in features.starts:
            torch.testing.assert_close(features.of(name), whole.of(name), rtol=0, atol=1e-5)


def test_a_model_that_is_not_whole_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    sees = {"model": choose_model(ModelSettings(name=str(folder), device="cpu"))}
    with pytest.raises(StudyError, match="its weights unusable"):
        see_images.fn(images=dataset("0").only("images.parquet"), **sees)
    assert not list(Path("artifacts/source/vision").iterdir())


def test_features_are_looked_up_by_images_and_model() -> None:
    def key(source: Ref, content: str = "0", **model: Any) -> str:
        """What Prefect looks them up by, as the flows call the stage."""
        chosen = ModelChoice(name="tiny", device="cpu", content=content, **model).seeing
        found = see_images.cache_key_fn(None, {"images": source.only("images.parquet"), "model": chosen})  # type: ignore[misc, arg-type]
        assert found is not None
        return found

    one = dataset("0")
    # Another seed's ingestion: other splits and questions of the same images.
    other = dataset("1", [replace(case, split="test", question="Why?") for case in CASES])
    assert one.digest != other.digest
    assert key(one) == key(other) == key(one, gradient_checkpointing=True)
    changed = dataset("2", CASES, [replace(IMAGES[0], data=IMAGES[1].data), *IMAGES[1:]])
    keys = [key(one), key(changed), key(one, content="1"), key(one, max_pixels=1600), key(one, revision="main")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_written_as_features_come_is_the_same_file(
    features: Features, tmp_path: Path, dtype: torch.dtype
) -> None:
    whole = Features(features.rows.to(dtype), features.starts, features.grids, features.merge)
    pieces = ((name, whole.of(name), whole.grids[name]) for name in whole.starts)
    found = write_features(tmp_path / FEATURES, pieces, whole.merge)
    assert torch.equal(found.rows, whole.rows)
    assert (tmp_path / FEATURES).read_bytes() == whole.to_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [FEATURES]


@pytest.mark.slow
def test_one_image_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def pieces() -> Iterator[tuple[str, torch.Tensor, tuple[int, int, int]]]:
        for number in range(20):
            gc.collect()
            assert sum(piece() is not None for piece in alive) <= 1
            rows = torch.full((4, 8), float(number))
            alive.append(weakref.ref(rows))
            yield str(number), rows, (1, 2, 2)
            del rows

    found = write_features(tmp_path / FEATURES, pieces(), 1)
    assert [found.of(str(number))[0, 0] for number in range(20)] == list(range(20))
