"""A download that is not whole, for a model of every family: one sentence before anything is trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from family_samples import every_family
from safetensors.torch import load_file, save_file
from test_base import sentence
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from tasks.engine import memory
from tasks.engine.base import load_base
from tasks.errors import StudyError

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the twin, to be spoiled."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shards(folder: Path) -> list[Path]:
    """The same weights in several files with an index."""
    AutoModelForImageTextToText.from_pretrained(folder).save_pretrained(folder, max_shard_size="200KB")
    (folder / WEIGHTS).unlink(missing_ok=True)
    found = sorted(folder.glob("model-*.safetensors"))
    assert len(found) > 2
    assert load_base(str(folder), device="cpu")
    return found


def keep_the_text_models(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    others = ("visual", "vision_tower", "multi_modal_projector")
    kept = {name: tensor for name, tensor in tensors.items() if not any(part in name for part in others)}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, folder / WEIGHTS, {"format": "pt"})


def take_another_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    other = "paligemma" if config["model_type"] in ("llava", "fast_vlm") else "llava"
    (folder / "config.json").write_text(json.dumps(config | {"model_type": other}))


def leave_a_layer_out(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"]):
        part.pop("layer_types", None)
    config["text_config"]["num_hidden_layers"] -= 1
    (folder / "config.json").write_text(json.dumps(config))


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated weights": (lambda folder: truncate(folder / WEIGHTS), "its weights unusable (Error while deser"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "its weights unusable (Error no file named model.safe"),
    "a shard missing": (lambda folder: shards(folder)[-1].unlink(), "its weights unusable (No such file or directory"),
    "a shard truncated": (lambda folder: truncate(shards(folder)[1]), "its weights unusable (Error while deserializ"),
    "a part's weights missing": (keep_the_text_models, "its weights unusable (they lack "),
    "a layer too many": (leave_a_layer_out, "its weights unusable (config.json has no place for "),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "its tokenizer unusable ("),
    "no tokens' roles": (lambda folder: (folder / "tokenizer_config.json").unlink(), "its tokenizer unusable ("),
    "no image processor": (
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        "its image processor unusable (Can't load image processor for",
    ),
    "another type": (take_another_type, "unusable ("),
}


@every_family
@pytest.mark.parametrize("how", SPOILT)
def test_a_download_that_is_not_whole(folder: Path, how: str) -> None:
    spoil, reason = SPOILT[how]
    spoil(folder)
    with pytest.raises(
        StudyError, match=r"^Expected a whole vision-language model in .*: download it again\.$"
    ) as error:
        load_base(str(folder), device="cpu")
    text = sentence(error)
    assert str(folder) in text
    assert reason in text
    assert ". " not in text


@every_family
def test_a_text_model_alone(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder).get_text_config()
    AutoModel.from_config(config).save_pretrained(folder)
    found = f"^Expected model.name to be a vision-language model .*, found .* of type {config.model_type}: choose "
    with pytest.raises(StudyError, match=found) as error:
        load_base(str(folder), device="cpu")
    sentence(error)


@every_family
def test_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truncate(folder / WEIGHTS)  # refused before these are read
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    with pytest.raises(StudyError, match=r"^Expected at least .* of free memory on cpu to train .*, found 1.0 MB: "):
        load_base(str(folder), device="cpu")
