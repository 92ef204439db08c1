"""Fixtures that several test modules share; no test asks the network."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any Hugging Face library reads it
# Models this small lose by threads: a hundredfold on a machine that has other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import Server, empty_database

import flows  # noqa: F401  (sets the libraries' reporting off before they are imported)

if TYPE_CHECKING:
    from family_samples import Twin

    from tasks.engine.base import Base
    from tasks.engine.engine import Engine
    from tasks.engine.vision import Features


gc.set_threshold(50_000, 10, 10)  # libraries and 7,000 collected tests are millions of objects, all of which stay

LONG = (
    "test_study", "test_flow", "test_runners", "test_compare_flow", "test_export_flow", "test_nightly", "test_faults",
    "test_strategies_flow", "test_kills", "test_participation_flow", "test_warm_start", "test_seen_flow",
    "test_operate", "test_canaries", "test_shared_artifacts", "test_audit_images", "test_forget", "test_whole_runs",
    "test_serve_runs",
)  # fmt: skip
"""Test modules of a minute or more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first: `make test` gives each worker a module at a time, in this order."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Ids of plain ASCII: pytest escapes the rest again whenever it collects in the same process, as mutmut asks."""
    odd = r"[^ -\[\]-~]"
    return re.sub(odd, "?", val) if isinstance(val, str) and re.search(odd, val) else None


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's database before the first run; copy it."""
    folder = tmp_path_factory.getbasetemp()
    return empty_database(folder.parent if hasattr(request.config, "workerinput") else folder)


@pytest.fixture(scope="session")
def server(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Prefect server for all commands of this worker."""
    server = Server(tmp_path_factory.mktemp("prefect"), database)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


# Torch and Transformers are imported where a test asks for a model: the other tests start without them.


@pytest.fixture(scope="session")
def twin(request: pytest.FixtureRequest) -> "Twin":
    """The family whose tiny model the fixtures below give: Qwen2-VL, or another that `every_family` asks for."""
    from family_samples import TWINS

    return TWINS[getattr(request, "param", "qwen2-vl")]


@pytest.fixture(scope="session")
def tiny_folder(twin: "Twin", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, as an ordinary Hugging Face folder. Copy it before changing it."""
    return twin.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_base(tiny_folder: Path) -> "Base":
    """The tiny model, loaded anew for each test, since an engine wraps it in place."""
    from tasks.engine.base import load_base

    return load_base(str(tiny_folder), device="cpu")


@pytest.fixture
def engine(tiny_base: "Base") -> "Engine":
    """An engine on the tiny model, its adapter fresh."""
    from tasks.engine.engine import Engine

    return Engine(tiny_base, r=4, alpha=8, dropout=0.1, targets=["q_proj", "v_proj"])


@pytest.fixture(scope="session")
def features(tiny_folder: Path) -> "Features":
    """What the tiny model's tower makes of the sample images."""
    from engine_samples import IMAGES

    from tasks.engine.base import load_base
    from tasks.engine.vision import encode_images

    return encode_images(load_base(str(tiny_folder), device="cpu"), IMAGES, batch_size=4)
