"""A recipe through the command: its stages one after the other, each kept; and what is refused before training."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from command import COMMAND, Server, run
from transformers import AutoModelForImageTextToText

from tasks.cases.seen import read_seen
from tasks.engine.base import load_base
from tasks.engine.identity import RECORD
from tasks.records import EpochLoss, read_table

STAGES = [
    {"title": "words", "dataset": {"name": "phantom", "images": 4}, "sides": ["text"], "epochs": 2},
    {"title": "images", "sides": ["tower", "projector"], "tower_targets": ["qkv"], "epochs": 1},
]


def pretrain(server: Server, folder: Path, *assignments: str) -> subprocess.CompletedProcess[str]:
    """The command in a folder that holds `recipe.yaml`."""
    words = [word for each in assignments for word in ("--set", each)]
    return run(server, folder, [str(COMMAND), "pretrain", "--settings", "recipe.yaml", *words])


def write_recipe(folder: Path, model: str) -> None:
    """A recipe of two stages."""
    recipe = {"name": "small", "model": {"name": model}, "stages": STAGES}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


@pytest.mark.slow
def test_stages_follow_each_other_and_one_that_is_lost_is_trained_again_alone(server: Server, tmp_path: Path) -> None:
    write_recipe(tmp_path, "embedded")
    done = pretrain(server, tmp_path)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "artifacts/recipes/small"
    rows = read_table(made / "losses.parquet", EpochLoss)
    assert [(row.stage, row.epoch) for row in rows] == [("words", 1), ("words", 2), ("images", 1)]
    assert all(any(row.kept for row in rows if row.stage == stage["title"]) for stage in STAGES)
    assert (made / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert {row.dataset for row in read_seen(made / RECORD)} == {"phantom"}
    # An ordinary folder: transformers opens it, and so does a federation.
    AutoModelForImageTextToText.from_pretrained(made)
    load_base(str(made), device="cpu")
    weights = (made / "model.safetensors").read_bytes()
    stages = {path: path.stat().st_ctime_ns for path in (tmp_path / "artifacts/shared/stage").iterdir()}
    assert len(stages) == 2
    last = max(stages, key=lambda path: stages[path])
    shutil.rmtree(last)
    done = pretrain(server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_ctime_ns for path in stages if path != last} == {
        path: seen for path, seen in stages.items() if path != last
    }
    assert last.exists()
    assert (made / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stages.0.epoch=3", "stages.N.epochs"),
        ("stages.1.tower_targets=[nothing]", "stages.1.tower_targets"),
        ("stages.0.sides=[]", "stages.0.sides"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_sentence(
    server: Server, tmp_path: Path, assignment: str, message: str
) -> None:
    write_recipe(tmp_path, "embedded")
    done = pretrain(server, tmp_path, assignment)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "artifacts/shared").exists()
