"""Training a text model in full: what learns, and what does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import IMAGES, prompts_with_neighbours, same
from interrupted import breaking_off, checkpoint, steps_of
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tasks.engine.base import Base, load_base
from tasks.engine.batch import encode
from tasks.engine.vision import encode_images
from tasks.pretrain.text import train_text
from tasks.store.checkpoints import Checkpoint


@pytest.mark.parametrize("projector", [False, True])
@pytest.mark.parametrize("twin", ["smol-clip"], indirect=True)
def test_the_text_model_learns_and_the_projector_where_asked(tiny_base: Base, projector: bool) -> None:
    model = tiny_base.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    features = encode_images(tiny_base, IMAGES, projected=not projector)
    train_text(
        tiny_base,
        features,
        encode(tiny_base, features, prompts_with_neighbours()),
        epochs=1,
        batch_size=4,
        learning_rate=1e-2,
        seed=0,
        title="lesson",
        projector=projector,
    )
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("language_model" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed) == projector
    assert not any("vision_tower" in name for name in changed)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("number", [1, 3, 4])
def test_broken_off_a_lesson_goes_on_to_the_same_bytes(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The learning rate of each step follows from the step's number: of four, one warms up, and a cosine follows."""
    monkeypatch.chdir(tmp_path)

    def lesson(kept: Checkpoint | None) -> tuple[float, dict[str, torch.Tensor]]:
        base = load_base(str(tiny_folder), device="cpu")
        features = encode_images(base, IMAGES)
        examples = encode(base, features, prompts_with_neighbours())
        how: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "seed": 0, "title": "lesson"}
        loss = train_text(base, features, examples, **how, checkpoint=kept)
        return loss, dict(base.model.state_dict())

    rates: list[float] = []
    loss, weights = lesson(None)
    with breaking_off(number):
        lesson(checkpoint())
    found: list[Any] = []
    handle = register_optimizer_step_pre_hook(lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"]))
    assert steps_of(lambda: found.append(lesson(checkpoint()))) == 4 - number + 1
    handle.remove()
    assert rates == pytest.approx([0.01, 0.01, 0.00755, 0.00265][number - 1 :])
    assert found[0][0] == loss and same(found[0][1], weights)
