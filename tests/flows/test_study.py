"""The default study on the embedded data: memory, whether training helps; and a base from nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import Server, fed_rag


def study(folder: Path, *settings: str, server: Server | None = None) -> dict[str, Any]:
    """The results of a study, without altered prompts and maps, which change no score."""
    chosen = (*settings, "evaluation.reliance=0", "evaluation.saliency=0")
    fed_rag(folder, "run", *(word for each in chosen for word in ("--set", each)), server=server)
    return json.loads((folder / "artifacts/latest/results.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_memory_does_not_grow_with_hospitals(server: Server, tmp_path: Path) -> None:
    common = ("dataset.images=12", "partition.scheme=iid", "federation.rounds=1")
    few = study(tmp_path / "few", *common, "partition.hospitals=2", server=server)
    many = study(tmp_path / "many", *common, "partition.hospitals=16", server=server)
    assert many["peak_memory_bytes"] <= 1.1 * few["peak_memory_bytes"]


@pytest.mark.slow
def test_the_trained_model_beats_the_base_and_the_majority(server: Server, tmp_path: Path) -> None:
    """At seed 0; docs/comparison.md has five."""
    default = study(tmp_path, server=server)
    trained, *others = default["configurations"]["fed+rag"], *map(default["baselines"].get, ("base", "majority"))
    for other in others:
        assert trained["closed"]["accuracy"] > other["closed"]["accuracy"]
        assert trained["open"]["exact_match"] > other["open"]["exact_match"]
    assert default["peak_memory_bytes"] < 4 * 2**30


@pytest.mark.slow
def test_a_base_from_nothing_serves_a_study_on_the_embedded_server(server: Server, tmp_path: Path) -> None:
    fed_rag(tmp_path, "pretrain", "--images", "100", "--out", "base", server=server)
    files = {path.name for path in (tmp_path / "base").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    small = ("dataset.images=6", "federation.rounds=1", "partition.hospitals=2")
    results = study(tmp_path, f"model.name={tmp_path / 'base'}", *small)
    assert results["settings"]["model"]["name"] == str(tmp_path / "base")
    assert results["configurations"]["fed+rag"]["open"]["n"] > 0
