"""Presets, formats and refusals of the families; the way from a folder to an adapter and back in each of them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from engine_samples import CASES, IMAGES, answer_texts, case, logits, prompts_with_neighbours
from family_samples import Twin, every_family

from tasks.engine.adapter import adapter_files, load_state
from tasks.engine.base import Base, load_base
from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.families.registry import FAMILIES, PRESETS
from tasks.engine.identity import identify, resolve
from tasks.engine.prompt import build_prompt
from tasks.engine.train import mean_loss, train
from tasks.engine.vision import Features, encode_images
from tasks.errors import StudyError


@every_family
def test_an_adapter_goes_the_whole_way(engine: Engine, features: Features, tiny_folder: Path, tmp_path: Path) -> None:
    """Trained, saved, and read by another process's engine on another copy of the base, it answers the same."""
    examples = encode(engine.base, features, prompts_with_neighbours())
    engine.switch(engine.initial_state(0))
    before = answer_texts(engine, features, examples, tokens=400, max_new_tokens=8)
    train(engine, features, examples, epochs=6, batch_size=4, tokens=8192, learning_rate=1e-2, seed=0)
    for name, data in adapter_files(engine.read(), engine.config, "tiny").items():
        (tmp_path / name).write_bytes(data)
    after = answer_texts(engine, features, examples, tokens=400, max_new_tokens=8)
    assert after != before
    other = Engine(load_base(str(tiny_folder), device="cpu"), r=4, alpha=8, dropout=0.1, targets=["q_proj", "v_proj"])
    other.switch(load_state(tmp_path))
    again = encode(other.base, encode_images(other.base, IMAGES), prompts_with_neighbours())
    assert answer_texts(other, features, again, tokens=400, max_new_tokens=8) == after


@every_family
def test_a_saved_base_is_the_same_model(tiny_base: Base, features: Features, tmp_path: Path) -> None:
    for part in (tiny_base.model, tiny_base.tokenizer, tiny_base.image_processor):
        part.save_pretrained(tmp_path)
    again = load_base(str(tmp_path), device="cpu")
    examples = encode(tiny_base, features, prompts_with_neighbours())
    assert encode(again, encode_images(again, IMAGES), prompts_with_neighbours()) == examples
    inputs = collate(tiny_base, features, examples).inputs
    assert torch.equal(logits(again.model, inputs), logits(tiny_base.model, inputs))


@every_family
def test_half_precision_goes_the_same_way(tiny_base: Base) -> None:
    """As on a GPU; the adapter stays in single precision."""
    tiny_base.model.to(torch.bfloat16)
    features = encode_images(tiny_base, IMAGES)
    assert features.rows.dtype == torch.bfloat16
    engine = Engine(tiny_base, r=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])
    examples = encode(tiny_base, features, prompts_with_neighbours())
    engine.switch(engine.initial_state(0))
    loss, _ = train(engine, features, examples, epochs=4, batch_size=8, tokens=8192, learning_rate=1e-2, seed=0)
    after, _ = mean_loss(engine, features, examples, 8)
    assert after < loss
    assert len(answer_texts(engine, features, examples, tokens=8192, max_new_tokens=3)) == len(examples)


@every_family
def test_what_people_wrote_ends_no_turn(twin: Twin, tiny_base: Base, features: Features) -> None:
    marks = ["USER:", "ASSISTANT:", "[INST]", "[/INST]", "<image>", "<|image_pad|>", twin.end, "<|eot_id|>", "\n"]
    family, config = tiny_base.family, tiny_base.config
    known = [mark for mark in marks if mark in family.marks(tiny_base.tokenizer, config)] + [twin.end]
    if family.model_types == ("paligemma",):
        known.append("\n")
    honest, forged = (
        encode(tiny_base, features, [build_prompt(case(1, "image-0", f"a {words} b", words), [])])[0]
        for words in ("lung", " ".join(known))
    )

    def count(ids: tuple[int, ...], mark: str) -> int:
        return str(tiny_base.tokenizer.decode(ids, skip_special_tokens=False)).count(mark)

    for mark in known:
        assert count(forged.prompt_ids, mark) == count(honest.prompt_ids, mark)
    assert forged.prompt_ids.count(tiny_base.image_token_id) == features.tokens("image-0")
    assert count(forged.answer_ids, twin.end) == 1


@pytest.mark.parametrize("twin", ["llava", "paligemma"], indirect=True)
def test_a_tower_of_one_size_is_not_bounded_below_it(tiny_folder: Path) -> None:
    assert load_base(str(tiny_folder), device="cpu", max_pixels=56 * 56)
    with pytest.raises(StudyError, match=r"to be at least 3136 .* 56 x 56 pixels only, found 3000: raise it or leave"):
        load_base(str(tiny_folder), device="cpu", max_pixels=3000)


@pytest.mark.parametrize("twin", ["llava", "paligemma"], indirect=True)
def test_features_of_one_size_are_squares(tiny_base: Base, features: Features) -> None:
    assert {features.tokens(image.id) for image in IMAGES} == {16}
    assert set(features.grids.values()) == {(1, 4, 4)}
    assert features.merge == 1


@pytest.mark.parametrize("twin", ["llava"], indirect=True)
def test_a_class_token_counts(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vision_feature_select_strategy": "full"}))
    base = load_base(str(folder), device="cpu")
    found = encode_images(base, IMAGES)
    assert set(found.grids.values()) == {(1, 1, 17)}
    batch = collate(base, found, encode(base, found, [build_prompt(CASES[0], [CASES[1]])]))
    assert logits(base.model, batch.inputs).isfinite().all()


@pytest.mark.parametrize("twin", ["llava"], indirect=True)
def test_llavas_own_layout_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llava_mistral"}))
    message = r"^Expected model.name .* of type llava_mistral: take the same model converted, as the preset llava-med"
    with pytest.raises(StudyError, match=message):
        load_base(str(folder), device="cpu")


def test_presets_stand_for_their_models() -> None:
    wanted = {"qwen2-vl-2b", "qwen2-vl-7b", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "llava-med-7b", "llava-1.5-13b"}
    assert wanted | {"llama-clip", "smol-clip", "radiology", "paligemma-3b", "paligemma-3b-224"} == PRESETS.keys()
    assert sum(len(family.presets) for family in FAMILIES) == len(PRESETS)
    assert resolve("qwen2-vl-2b") == "Qwen/Qwen2-VL-2B-Instruct"
    assert resolve("Qwen/Qwen2-VL-2B-Instruct") == "Qwen/Qwen2-VL-2B-Instruct"
    kinds = [kind for family in FAMILIES for kind in family.model_types]
    assert len(set(kinds)) == len(kinds)


def test_an_absent_preset_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"found 'paligemma-3b', .*: download it first and give its folder\.$"):
        identify("paligemma-3b", None)
    if not Path(PRESETS["llama-clip"].place).exists():
        with pytest.raises(StudyError, match=r"found 'llama-clip', .*: run fed-rag compose llama-clip --vision"):
            identify("llama-clip", None)
    if not Path(PRESETS["smol-clip"].place).exists():
        with pytest.raises(StudyError, match=r"found 'smol-clip', .*: run fed-rag compose smol-clip\.$"):
            identify("smol-clip", None)
