"""The adapter of a coalition is what a round of these hospitals alone would have made."""

import pytest
import torch
from engine_samples import randomised, same

from tasks.engine.adapter import State
from tasks.engine.residual import MARK
from tasks.federate.contributions.coalitions import adapter_of
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.means import weighted_mean
from tasks.federate.state import ServerState, Update
from tasks.settings import StrategySettings

SHAPES = {"one.lora_A.weight": (2, 11), "one.lora_B.weight": (13, 2)}


def state(seed: int) -> State:
    return randomised({name: torch.empty(shape) for name, shape in SHAPES.items()}, seed)


BEFORE = ServerState({"adapter": state(99)})
SENT = [Update(f"h{n}", 0, n + 1, 0.5, {"adapter": state(n)}) for n in range(3)]


def test_it_is_the_mean_of_its_members_and_of_none_the_state_before() -> None:
    rule = choose_rule(StrategySettings())
    assert same(adapter_of(rule, BEFORE, SENT[1:]), weighted_mean([state(1), state(2)], [2, 3]))
    assert same(adapter_of(rule, BEFORE, SENT[:1]), state(0))
    assert same(adapter_of(rule, BEFORE, []), state(99))


@pytest.mark.parametrize("lora_mean", ["stacked", "residual"])
def test_a_residual_is_part_of_it(lora_mean: str) -> None:
    rule = choose_rule(StrategySettings(lora_mean=lora_mean))  # type: ignore[arg-type]
    made = adapter_of(rule, BEFORE, SENT)
    whole = made["one.lora_B.weight"].double() @ made["one.lora_A.weight"].double()
    whole += made[f"one{MARK}B.weight"].double() @ made[f"one{MARK}A.weight"].double()
    products = [
        each["one.lora_B.weight"].double() @ each["one.lora_A.weight"].double() for each in map(state, range(3))
    ]
    expected = sum(count / 6 * product for count, product in zip((1, 2, 3), products, strict=True))
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-5)
