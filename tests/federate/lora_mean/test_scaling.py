"""Scalings against those that PEFT computes with."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tasks.errors import StudyError
from tasks.federate.lora_mean.scaling import folded, scaling_of
from tasks.federate.state import Update


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("r", "alpha"), [(4, 8), (9, 3)])
def test_scalings_are_those_of_peft(r: int, alpha: int, rslora: bool) -> None:
    config = LoraConfig(r=r, lora_alpha=alpha, use_rslora=rslora, target_modules=["0"])
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(16, 16)), config)
    assert scaling_of(config.to_dict()) == pytest.approx(model.base_model.model[0].scaling["default"])


def test_an_update_of_another_scaling_means_the_same_once_folded() -> None:
    tensors = {
        "x.lora_A.weight": torch.ones(2, 3),
        "x.lora_B.weight": torch.full((4, 2), 3.0),
        "p.weight": torch.ones(1),
    }
    update = Update("north", 0, 5, 0.5, {"adapter": tensors})
    assert folded(update, 2.0, 2.0) is update
    made = folded(update, 4.0, 2.0).parts["adapter"]
    whole, before = (2.0 * made["x.lora_B.weight"] @ made["x.lora_A.weight"], 4.0 * torch.full((4, 3), 6.0))
    assert torch.equal(whole, before)
    assert torch.equal(made["x.lora_A.weight"], tensors["x.lora_A.weight"])
    assert torch.equal(made["p.weight"], tensors["p.weight"])


@pytest.mark.parametrize(
    ("setting", "value"), [("use_dora", True), ("rank_pattern", {"q_proj": 2}), ("alpha_pattern", {"q_proj": 2})]
)
def test_adapters_without_such_a_product_are_refused(setting: str, value: object) -> None:
    config = {"r": 4, "lora_alpha": 8, "use_rslora": False, setting: value}
    with pytest.raises(StudyError, match=rf"plain LoRA in every update, found .* \({setting}\): train without it"):
        scaling_of(config)
