"""Combinations of rules for means, strategies and personal adapters that make no sense are refused in a sentence."""

import pytest
from pydantic import ValidationError

from tasks.settings import FederationSettings, Study


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"strategy": "none", "personal": "ditto"}, "expected personal none with strategy none"),
        ({"lora_mean": "stacked", "personal": "ditto"}, "expected personal fine-tune with lora_mean stacked"),
        ({"lora_mean": "product", "strategy": "fedavgm"}, "expected strategy fedavg or fedprox with lora_mean"),
        ({"lora_mean": "share-a", "strategy": "none"}, "expected factors with strategy none"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FederationSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["stacked", "residual"])
def test_a_residual_is_of_text_layers(rule: str) -> None:
    given = {"lora": {"tower_targets": ["qkv"]}, "federation": {"lora_mean": rule}}
    with pytest.raises(ValidationError, match=f"expected no lora.tower_targets with lora_mean {rule}"):
        Study.model_validate(given)


@pytest.mark.parametrize("learns", [{"projector": True}, {"tower_targets": ["qkv"]}])
def test_a_mixture_is_of_text_layers(learns: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"expected neither lora\.tower_targets nor lora\.projector"):
        Study.model_validate({"lora": learns, "federation": {"personal": "mixture"}})


def test_hospitals_train_the_same_for_the_adapter_for_all_whatever_is_personal() -> None:
    plain = FederationSettings()
    other = FederationSettings(personal="ditto", personal_pull=3, personal_epochs=2, lora_mean="near", rounds=9)
    assert plain.local == other.local
    assert plain.strategy == FederationSettings(personal="ditto").strategy
