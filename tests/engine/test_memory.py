"""The memory that a base needs follows from its configuration; too little is refused before a weight is read."""

from pathlib import Path

import pytest
import torch
from family_samples import every_family
from transformers import AutoConfig

from tasks.engine import memory
from tasks.engine.base import Base, load_base
from tasks.engine.engine import Engine
from tasks.errors import StudyError


@every_family
def test_the_count_is_that_of_the_loaded_model(tiny_base: Base, tiny_folder: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_folder)
    weights = sum(parameter.numel() for parameter in tiny_base.model.parameters())
    for dtype in (torch.float32, torch.bfloat16):
        assert memory.estimate(config, dtype).weights == weights * dtype.itemsize
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    engine = Engine(tiny_base, r=memory.RANK, alpha=8, dropout=0.0, targets=linear)
    trained = sum(parameter.numel() for parameter in engine.parameters())
    assert memory.estimate(config, torch.float32).adapter == trained * 4 * 4


def test_too_little_is_refused_before_loading(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = memory.estimate(AutoConfig.from_pretrained(tiny_folder), torch.float32).total
    monkeypatch.setattr(memory, "free_bytes", lambda device: need)
    assert load_base(str(tiny_folder), device="cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda device: need - 1)
    message = r"^Expected at least .* MB of free memory on cpu to train .*, found .*: free some, .*or .* which fits\.$"
    with pytest.raises(StudyError, match=message) as error:
        load_base(str(tiny_folder), device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("gigabytes", "fitting"),
    [
        (4, "smol-clip, radiology or embedded, which fit"),
        (8, "qwen2-vl-2b, smol-clip, radiology or embedded, which fit"),
        (20, "qwen2.5-vl-3b, paligemma-3b, paligemma-3b-224, qwen2-vl-2b, smol-clip, radiology or embedded, which fit"),
    ],
)
def test_what_would_fit_is_named(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: int, fitting: str
) -> None:
    config = AutoConfig.from_pretrained(tiny_folder)
    monkeypatch.setattr(memory, "free_bytes", lambda device: gigabytes * 10**9)
    monkeypatch.setattr(
        memory, "estimate", lambda config, dtype, is_quantised=False: memory.Need(90 * 10**9, 10**8, 10**9)
    )
    with pytest.raises(StudyError, match=f"to train huge .*found {gigabytes}.0 GB: .* set model.name to {fitting}"):
        memory.check_memory(config, torch.bfloat16, "cuda", "huge")


def test_a_system_that_does_not_say_is_trusted(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    memory.check_memory(AutoConfig.from_pretrained(tiny_folder), torch.float32, "cpu", "tiny")


def test_free_memory_is_read() -> None:
    found = memory.free_bytes("cpu")
    assert found is None or 10**8 < found < 10**14
