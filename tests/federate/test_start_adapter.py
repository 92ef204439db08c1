"""An adapter from outside comes through the door: as PEFT saves it, of the same model, rank and targets."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import randomised, same
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tasks.engine.adapter import CONFIG, WEIGHTS, State, adapter_files
from tasks.engine.engine import Engine
from tasks.errors import StudyError
from tasks.federate.start import admit_adapter


@pytest.fixture
def expected(engine: Engine) -> State:
    return engine.initial_state(0)


@pytest.fixture
def config(engine: Engine) -> dict[str, Any]:
    return dict(engine.config.to_dict())


@pytest.fixture
def place(engine: Engine, expected: State, tmp_path: Path) -> Path:
    """A folder that PEFT itself has saved."""
    engine.switch(randomised(expected, 1))
    assert isinstance(engine.peft, PeftModel)
    engine.peft.save_pretrained(str(tmp_path))
    return tmp_path


def test_what_peft_saved_is_taken_as_it_is(place: Path, expected: State, config: dict[str, Any]) -> None:
    found = admit_adapter(place, expected, config)
    assert same(found, randomised(expected, 1)) and not same(found, expected)


def test_half_precision_becomes_float32(place: Path, expected: State, config: dict[str, Any]) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in load_file(place / WEIGHTS).items()}
    save_file(halves, place / WEIGHTS)
    found = admit_adapter(place, expected, config)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    assert same(found, {name: tensor.float() for name, tensor in halves.items()})


CHANGES = [
    ({"r": 2}, "another adapter configuration (r)"),
    ({"lora_alpha": 99}, "another adapter configuration (lora_alpha)"),
    ({"use_rslora": True}, "another adapter configuration (use_rslora)"),
    ({"alpha_pattern": {"q_proj": 1}}, "another adapter configuration (alpha_pattern)"),
]


def test_where_and_how_it_was_trained_makes_no_difference(place: Path, expected: State, config: dict[str, Any]) -> None:
    harmless = {"base_model_name_or_path": "/somewhere", "lora_dropout": 0, "peft_version": "0.1", "task_type": None}
    (place / CONFIG).write_text(json.dumps(json.loads((place / CONFIG).read_text()) | harmless))
    assert same(admit_adapter(place, expected, config), randomised(expected, 1))


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_an_adapter_that_means_something_else_is_refused(
    place: Path, expected: State, config: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    stated = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(
        json.dumps(stated | change | {"base_model_name_or_path": "/somewhere", "lora_dropout": 0})
    )
    with pytest.raises(StudyError, match="of this study's model and lora settings") as error:
        admit_adapter(place, expected, config)
    assert reason in str(error.value)


def test_other_tensors_are_refused(place: Path, engine: Engine, expected: State, config: dict[str, Any]) -> None:
    first = sorted(expected)[0]
    broken: list[tuple[State, str]] = [
        ({name: tensor for name, tensor in expected.items() if name != first}, "1 tensors missing and 0 unexpected"),
        (expected | {"base_model.model.other.lora_A.weight": torch.zeros(1)}, "0 tensors missing and 1 unexpected"),
        (expected | {first: torch.zeros(3, 3)}, f"{first} of shape (3, 3)"),
        (expected | {first: torch.full_like(expected[first], torch.nan)}, f"{first} that is not finite"),
    ]
    for state, reason in broken:
        for name, data in adapter_files(state, engine.config, "model").items():
            (place / name).write_bytes(data)
        with pytest.raises(StudyError) as error:
            admit_adapter(place, expected, config)
        assert reason in str(error.value)


def test_a_folder_of_something_else_is_refused(place: Path, expected: State, config: dict[str, Any]) -> None:
    for name, data in ((WEIGHTS, b"no tensors"), (CONFIG, b"[]"), (CONFIG, b"{")):
        kept = (place / name).read_bytes()
        (place / name).write_bytes(data)
        with pytest.raises(StudyError, match="found none that can be read"):
            admit_adapter(place, expected, config)
        (place / name).write_bytes(kept)
    (place / CONFIG).unlink()
    with pytest.raises(StudyError, match="found none that can be read"):
        admit_adapter(place, expected, config)
