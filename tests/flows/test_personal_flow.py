"""A study in which hospitals keep a factor of LoRA, and have personal adapters: what leaves them, and what is told."""

import json
from pathlib import Path

import pytest
import torch
from command import Server, run
from safetensors import safe_open
from safetensors.torch import load_file
from test_flow import UNEXPLAINED, arguments, newest

from flows.serve.place import open_place

pytestmark = pytest.mark.slow


def names_in(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def test_what_is_personal_stays_home_and_is_told_beside_the_rest(
    server: Server, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = ("federation.lora_mean=share-a", "federation.personal=mixture")
    result = run(server, tmp_path, arguments(tiny_folder, *UNEXPLAINED, *rules))
    assert result.returncode == 0, result.stderr
    store, finished = tmp_path / "artifacts", newest(tmp_path)
    sent = [*store.glob("shared/update/*/*.safetensors"), *store.glob("shared/adapter/*/*.safetensors")]
    learned = [path for path in sent if json.loads((path.parent / "manifest.json").read_text())["inputs"]]
    assert len(learned) == 3 * 2 + 2  # three hospitals' updates of two rounds, and the means
    assert all("lora_A" in name for path in learned for name in names_in(path))
    results = json.loads((finished / "results.json").read_text())
    assert [row["lost_share"] for row in results["rounds"]] == [{}, {}]
    assert set(results["configurations"]) == {"fed+rag", "fed+rag+personal"}
    references = json.loads((finished / "references.json").read_text())
    for hospital, places in references["hospitals"].items():
        assert places["adapter"].startswith(f"hospitals/{hospital}/joined/")
        assert places["personal"].startswith(f"hospitals/{hospital}/mixture/")
        assert any("lora_B" in name for name in names_in(store / places["adapter"] / "adapter_model.safetensors"))
    monkeypatch.chdir(tmp_path)
    hospital, places = next(iter(references["hospitals"].items()))
    assert open_place(finished, hospital).adapter == Path("artifacts") / places["adapter"]
    assert open_place(finished, hospital, personal=True).adapter == Path("artifacts") / places["personal"]
    personal = results["personal"]
    assert personal["configuration"] == "fed+rag+personal"
    assert set(personal["hospitals"]) == set(references["hospitals"])
    everything = results["configurations"]["fed+rag"]
    assert personal["n"] == everything["closed"]["n"] + everything["open"]["n"]
    assert "Personal adapters" in (finished / "report.html").read_text(encoding="utf-8")
    down, up = ([row[name] for row in results["rounds"]] for name in ("bytes_down", "bytes_up"))
    assert down[1] < 0.8 * down[0] and up[0] == pytest.approx(up[1], rel=0.01)


def test_layers_of_a_hospitals_own_stay_home_and_a_newcomer_gets_the_rest(
    server: Server, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = ("federation.personal=fedper", "federation.personal_layers=[q_proj]")
    result = run(server, tmp_path, arguments(tiny_folder, *UNEXPLAINED, *rules))
    assert result.returncode == 0, result.stderr
    store, finished = tmp_path / "artifacts", newest(tmp_path)
    sent = store.glob("shared/update/*/*.safetensors")
    assert all("q_proj" not in name for path in sent for name in names_in(path))
    references = json.loads((finished / "references.json").read_text())["hospitals"]
    states = {
        name: {kind: load_file(store / places[kind] / "adapter_model.safetensors") for kind in ("adapter", "personal")}
        for name, places in references.items()
    }
    first, second, *_ = states.values()
    for name, tensor in first["personal"].items():
        assert torch.equal(first["adapter"][name], second["adapter"][name])
        assert torch.equal(tensor, second["personal"][name]) == ("q_proj" not in name)
        assert "q_proj" in name or torch.equal(tensor, first["adapter"][name])
        assert "q_proj.lora_B" not in name or not first["adapter"][name].any()
    assert json.loads((finished / "results.json").read_text())["personal"]["worst"]
    refused = run(
        server, tmp_path, arguments(tiny_folder, *UNEXPLAINED, rules[0], "federation.personal_layers=[x_proj]")
    )
    assert "Expected a part of the adapter in federation.personal_layers, found x_proj" in refused.stderr
