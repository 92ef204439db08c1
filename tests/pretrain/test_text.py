"""Training a text model in full: what learns, and what does not."""

import pytest
import torch
from engine_samples import IMAGES, prompts_with_neighbours

from tasks.engine.base import Base
from tasks.engine.batch import encode
from tasks.engine.vision import encode_images
from tasks.pretrain.text import train_text


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
