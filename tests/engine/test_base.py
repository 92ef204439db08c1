"""Loading a base: whole models as published are taken, everything else is refused in one sentence."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from engine_samples import IMAGES
from safetensors.torch import load_file, save_file
from transformers import BlipConfig, BlipForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

from tasks.engine.base import Base, load_base
from tasks.engine.identity import choose_model, identify, precision_of, resolve
from tasks.engine.vision import Features, encode_images
from tasks.errors import StudyError
from tasks.settings import ModelSettings

WEIGHTS = "model.safetensors"
LOST = "its tokenizer unusable (words or an image's placeholder get lost in it or in its chat template)"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def sentence(error: pytest.ExceptionInfo[StudyError]) -> str:
    """The message, once it is seen to be one line that ends as a sentence, with no other error behind it."""
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return text


def test_a_loaded_base_is_frozen(tiny_base: Base) -> None:
    assert not tiny_base.model.training
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())
    assert {parameter.dtype for parameter in tiny_base.model.parameters()} == {torch.float32}
    assert tiny_base.image_token_id == tiny_base.tokenizer.convert_tokens_to_ids("<|image_pad|>")


def truncate(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


def leave_a_pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12345\n")


def remove_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def lose_a_layer(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.layers.1.")}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, folder / WEIGHTS, {"format": "pt"})


def widen_the_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 100
    (folder / "config.json").write_text(json.dumps(config))


def deepen_the_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()


def name_another_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nonsense"}))


def write(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(text)

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, "incomplete metadata"),
        (empty, "header too small"),
        (leave_a_pointer, "header too large"),
        (remove_weights, "no file named model.safetensors"),
        (pickle_weights, "no file named model.safetensors"),
        (lose_a_layer, "its weights unusable (they lack model.language_model.layers.1."),
        (widen_the_config, "its weights unusable (model.language_model.layers.0.mlp.down_proj.weight is (64, "),
        (deepen_the_config, "Class validation error"),
        (write("config.json", "{"), "not a valid JSON file"),
        (name_another_type, "does not recognize this architecture"),
        (remove_tokenizer, "does not appear to have a file named tokenizer_config.json"),
        (remove("tokenizer_config.json"), "does not appear to have a file named tokenizer_config.json"),
        (remove("tokenizer.json"), LOST),
        (remove("chat_template.jinja"), "chat_template is not set"),
        (write("chat_template.jinja", "{{ messages[0]['role'] }}"), LOST),
        (write("tokenizer.json", '{"added_tokens": []}'), "Model missing"),
        (write("tokenizer.json", "[]"), "cannot be interpreted"),
        (remove("preprocessor_config.json"), "Can't load image processor"),
        (write("preprocessor_config.json", "{"), "not a valid JSON file"),
        (write("preprocessor_config.json", "[]"), "no attribute"),
    ],
)
def test_a_spoilt_folder_is_refused(folder: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(folder)
    with pytest.raises(StudyError, match=r"^Expected a whole .* in .*: download it again\.$") as error:
        load_base(str(folder), device="cpu")
    assert reason in sentence(error)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("config.json", {"model_type": "nonsense", "auto_map": {"AutoConfig": "code.Config"}}),
        ("preprocessor_config.json", {"image_processor_type": "No", "auto_map": {"AutoImageProcessor": "code.P"}}),
    ],
)
def test_a_models_own_code_is_not_run(
    folder: Path, name: str, added: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | added))
    (folder / "code.py").write_text("raise SystemExit('the code was run')")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with pytest.raises(StudyError, match="contains custom code") as error:
        load_base(str(folder), device="cpu")
    sentence(error)


def text_only(folder: Path, words: int) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=words, num_key_value_heads=1, **sizes)).save_pretrained(folder)


def of_another_family(folder: Path, words: int) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": words, "encoder_hidden_size": 32, "bos_token_id": 0, **sizes}
    config = BlipConfig(text_config=text, vision_config={"image_size": 28, "patch_size": 14, **sizes})
    BlipForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize(("save", "kind"), [(text_only, "qwen2"), (of_another_family, "blip")])
def test_another_kind_of_model_is_refused(folder: Path, save: Callable[[Path, int], None], kind: str) -> None:
    save(folder, 400)
    message = rf"^Expected model.name to be .* of one of the types qwen2_vl, .*, found .* of type {kind}: choose"
    with pytest.raises(StudyError, match=message) as error:
        load_base(str(folder), device="cpu")
    sentence(error)


def test_cuda_where_there_is_none(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"model.device is cuda, but .* no CUDA device: set it to") as error:
        load_base(str(tiny_folder), device="cuda")
    sentence(error)
    assert load_base(str(tiny_folder), device="auto").device.type == "cpu"


@pytest.mark.parametrize(
    ("setting", "device", "expected"),
    [("auto", "cpu", "float32"), ("auto", "cuda", "bfloat16"), ("bfloat16", "cpu", "bfloat16")],
)
def test_precision(setting: Literal["auto", "bfloat16"], device: Literal["cpu", "cuda"], expected: str) -> None:
    assert precision_of(setting, device) == expected
    chosen = choose_model(ModelSettings(device="cpu", precision=setting))
    assert chosen.precision == precision_of(setting, "cpu")


@pytest.mark.parametrize("name", ["nobody/absent-model", "absent", "no such/folder/anywhere", "./absent"])
def test_an_unknown_name(name: str) -> None:
    with pytest.raises(StudyError, match=r"Expected a whole vision-language model in .*download it again\.$") as error:
        load_base(name, device="cpu")
    sentence(error)
    with pytest.raises(StudyError, match=r"which is no folder and could not be had .*HF_HUB_OFFLINE is set") as error:
        identify(name, None)
    assert repr(name) in sentence(error)


@pytest.mark.parametrize("name", ["embedded", "qwen2-vl-2b", "llama-clip"])
def test_a_folder_named_like_a_preset_is_not_taken_for_it(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    preset = resolve(name)  # a folder that holds no model is not in the way
    shutil.copytree(tiny_folder, tmp_path / name, dirs_exist_ok=True)
    message = f"found '{name}', which is short for {preset} and a folder here: set it to ./{name} for the folder"
    for refuse in (identify, load_base):
        with pytest.raises(StudyError) as error:
            refuse(name, None)
        assert message in sentence(error)
    assert identify(f"./{name}", None) == identify(str(tiny_folder), None)
    assert load_base(f"./{name}", device="cpu").model.name_or_path == f"./{name}"


def test_a_folder_has_no_other_revision(tiny_folder: Path) -> None:
    with pytest.raises(StudyError, match=r"^Expected no model.revision for .* found 'main' for .*: leave it") as error:
        identify(str(tiny_folder), "main")
    sentence(error)


def test_identity_of_a_folder(folder: Path) -> None:
    found = identify(str(folder), None)
    assert identify(str(folder), None) == found
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    assert identify(str(folder), None) != found
    (folder / "config.json").unlink()
    with pytest.raises(StudyError, match=r"Expected a Hugging Face model folder at .*, found no config.json") as error:
        identify(str(folder), None)
    sentence(error)


@pytest.mark.parametrize("bound", [784, 1600, 3136, 6000])
def test_max_pixels_bounds_the_tokens(tiny_folder: Path, features: Features, bound: int) -> None:
    small = encode_images(load_base(str(tiny_folder), device="cpu", max_pixels=bound), IMAGES)
    for image in IMAGES:
        # No image is less than a token high or wide: the bound cannot hold a long strip.
        long = max(image.width, image.height) // min(image.width, image.height) * 28 * 28
        assert small.tokens(image.id) * 28 * 28 <= max(bound, long)
        assert small.tokens(image.id) <= features.tokens(image.id)
    assert len(small.rows) < len(features.rows)
