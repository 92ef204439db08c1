"""One base and one engine in memory, whatever is asked for."""

import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_samples import logits, prompts_with_neighbours, randomised

from tasks.engine import shared
from tasks.engine.base import Base
from tasks.engine.batch import collate, encode
from tasks.engine.identity import choose_model
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.settings import LoraSettings, ModelChoice, ModelSettings


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    shared._engine.clear()
    shared._base.clear()


@pytest.fixture
def model(tiny_folder: Path) -> ModelChoice:
    return choose_model(ModelSettings(name=str(tiny_folder), device="cpu"))


@pytest.fixture
def inputs(tiny_base: Base, features: Features) -> dict[str, torch.Tensor]:
    return collate(tiny_base, features, encode(tiny_base, features, prompts_with_neighbours()[:2])).inputs


def test_equal_settings_share_one_base_and_one_engine(model: ModelChoice) -> None:
    with shared.shared_base(model) as base:
        first = base
    with shared.shared_engine(model, LoraSettings(r=2)) as engine:
        assert engine.base is first
    with shared.shared_engine(choose_model(ModelSettings(name=model.name, device="cpu")), LoraSettings(r=2)) as again:
        assert again is engine
    with shared.shared_base(model) as base:
        assert base is first


def test_another_adapter_shape_leaves_nothing_of_the_former(
    model: ModelChoice, tiny_base: Base, inputs: dict[str, torch.Tensor]
) -> None:
    plain = logits(tiny_base.model, inputs)
    with shared.shared_engine(model, LoraSettings(r=2)) as former:
        former.switch(randomised(former.read(), 1))
        assert (logits(former.base.model, inputs) - plain).abs().max() > 0.1
    with shared.shared_engine(model, LoraSettings(r=3, targets=("o_proj",))) as engine:
        assert engine.base is former.base
        assert torch.equal(logits(engine.base.model, inputs), plain)
        assert sum(name.endswith("lora_A.default") for name, _ in engine.base.model.named_modules()) == 2
        assert len(engine.parameters()) == 4
        engine.switch(randomised(engine.read(), 1))
        assert (logits(engine.base.model, inputs) - plain).abs().max() > 0.1
    with shared.shared_engine(model, LoraSettings(r=2)) as again:
        assert torch.equal(logits(again.base.model, inputs), plain)
        again.switch(randomised(again.read(), 1))
        assert (logits(again.base.model, inputs) - plain).abs().max() > 0.1
        assert len(shared._engine) == 1


def test_another_model_is_loaded_once_the_former_is_gone(model: ModelChoice, tmp_path: Path) -> None:
    in_memory_at_its_end = []
    with shared.shared_engine(model, LoraSettings(r=2)) as engine:
        former = weakref.ref(engine.base.model, lambda _: in_memory_at_its_end.append(len(shared._base)))
    del engine
    other = model.model_copy(update={"name": str(shutil.copytree(model.name, tmp_path / "other"))})
    with shared.shared_base(other) as base:
        assert former() is None
        assert in_memory_at_its_end == [0]
        assert base.model.name_or_path == other.name
        assert list(shared._base.values()) == [base]
        assert not shared._engine


def test_a_refused_setting_leaves_the_base_usable(
    model: ModelChoice, tiny_base: Base, inputs: dict[str, torch.Tensor]
) -> None:
    with shared.shared_engine(model, LoraSettings(r=2)) as engine:
        engine.switch(randomised(engine.read(), 1))
    absent = LoraSettings(targets=("absent",))
    with pytest.raises(StudyError, match="found 'absent'"), shared.shared_engine(model, absent):
        pass
    with shared.shared_engine(model, LoraSettings(r=2)) as engine:
        assert torch.equal(logits(engine.base.model, inputs), logits(tiny_base.model, inputs))


def test_a_model_that_does_not_load_leaves_nothing(model: ModelChoice, tmp_path: Path) -> None:
    with shared.shared_base(model):
        pass
    with pytest.raises(StudyError), shared.shared_base(model.model_copy(update={"name": str(tmp_path)})):
        pass
    assert not shared._base
    with shared.shared_base(model) as base:
        assert base.model.name_or_path == model.name


def test_another_model_at_the_same_path_is_loaded_anew(model: ModelChoice, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model.name, tmp_path / "model"))
    first = choose_model(ModelSettings(name=str(folder), device="cpu"))
    with shared.shared_base(first) as base:
        before = base
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "{# other #}", encoding="utf-8")
    with shared.shared_base(first) as base:  # in memory it stays what it was
        assert base is before
    second = choose_model(ModelSettings(name=str(folder), device="cpu"))
    with shared.shared_base(second) as base:
        assert base is not before and base.tokenizer.chat_template.endswith("{# other #}")
    with shared.exclusive_base(second):
        pass
    for use in (shared.shared_base, shared.exclusive_base):
        with pytest.raises(StudyError, match=r"to stay as it was when the work began, found it changed"), use(first):
            pass
