"""Rules for means of LoRA against PEFT's own combination of adapters, and by their properties."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from pydantic import ValidationError
from scipy.optimize import minimize
from test_lost import LAYERS, adapter, dense, lost_by_factors, near

from tasks.federate.lora_mean.lost import lost_share, lost_shares
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.means import weighted_mean
from tasks.federate.state import ServerState, Update
from tasks.settings import StrategySettings

NAMES = [
    name for name in get_args(StrategySettings.model_fields["lora_mean"].annotation) if name != "share-a"
]  # of which there is no adapter for all
EXACT = {"freeze-a", "stacked", "alternate", "residual", "svd-b"}
SAMPLES = [30, 10, 5]
State = dict[str, torch.Tensor]


def rule(name: str, **given: Any) -> Any:
    return choose_rule(StrategySettings(lora_mean=name, **given))  # type: ignore[arg-type]


def sent_to(name: str, start: State, drift: float = 0.5, number: int = 1) -> list[Update]:
    """What three hospitals send by the orders of a rule, each after a drift of its own."""
    frozen = rule(name).order(number, "north").local.frozen
    return [
        Update(
            f"h{place}",
            number - 1,
            count,
            0.5,
            {
                "adapter": {
                    each: tensor
                    for each, tensor in near(start, place + 1, drift).items()
                    if not frozen or f"lora_{frozen}" not in each
                }
            },
        )
        for place, count in enumerate(SAMPLES)
    ]


def after(name: str, start: State, **given: Any) -> tuple[ServerState, list[State]]:
    """The server's next state by a rule, and the whole adapters of the hospitals."""
    updates = sent_to(name, start, **given)
    made = rule(name).aggregate(ServerState({"adapter": start}), updates)
    return made, [{**start, **update.parts["adapter"]} for update in updates]


def changes(state: ServerState) -> dict[str, np.ndarray]:
    """What an adapter and its residual change in each layer."""
    return {layer: sum(dense(dict(state.groups[group]), layer) for group in state.groups) for layer in LAYERS}


class Layers(torch.nn.Module):
    """A base of two linear layers, for PEFT."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(11, 13, bias=False)
        self.two = torch.nn.Linear(15, 10, bias=False)


def combined_by_peft(states: list[State], how: str, rank: int) -> dict[str, np.ndarray]:
    """Each layer's change by PEFT's `add_weighted_adapter`, with the hospitals' weights."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["one", "two"])
    names = [f"h{place}" for place in range(len(states))]
    model = get_peft_model(Layers(), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    for name, state in zip(names, states, strict=True):
        tensors = {f"base_model.model.{key.removeprefix('m.')}": each for key, each in state.items() if "lora" in key}
        loaded = set_peft_model_state_dict(model, tensors, adapter_name=name)
        assert not loaded.unexpected_keys
    weights = [count / sum(SAMPLES) for count in SAMPLES]
    more = {"svd_rank": rank * len(names)} if how == "svd" else {}
    model.add_weighted_adapter(names, weights, "mean", combination_type=how, **more)
    parts = {f"m.{name}": getattr(model.base_model.model, name) for name in ("one", "two")}
    return {name: part.get_delta_weight("mean").double().detach().numpy() for name, part in parts.items()}


def error(found: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Relative, over all layers."""
    return float(
        np.sqrt(sum(((found[name] - other[name]) ** 2).sum() for name in LAYERS))
        / np.sqrt(sum((other[name] ** 2).sum() for name in LAYERS))
    )


@pytest.mark.parametrize("name", NAMES)
def test_which_rules_are_the_mean_of_the_products(name: str) -> None:
    """By PEFT: `cat` and `svd` are exact, its `linear` and the mean of factors are not."""
    made, sent = after(name, adapter(0))
    found = changes(made)
    cat, svd = combined_by_peft(sent, "cat", 3), combined_by_peft(sent, "svd", 3)
    assert error(svd, cat) < 1e-5
    assert (error(found, cat) < 1e-5) == (name in EXACT) == rule(name).exact
    if name not in EXACT:
        assert error(found, cat) > 1e-2
        assert error(combined_by_peft(sent, "linear", 3), cat) > 0.1


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_rules_leave_what_they_are_given_and_what_is_no_lora(name: str, number: int) -> None:
    start = adapter(0)
    made, sent = after(name, start, number=number)
    again, _ = after(name, start, number=number)
    mean = weighted_mean(sent, SAMPLES)
    assert made.groups.keys() == again.groups.keys()
    assert all(
        torch.equal(tensor, again.groups[group][each])
        for group in made.groups
        for each, tensor in made.groups[group].items()
    )
    made = made.groups["adapter"]
    assert made.keys() == start.keys()
    assert all(made[each].shape == start[each].shape and made[each].dtype == torch.float32 for each in start)
    assert all(torch.equal(start[each], other) for each, other in adapter(0).items())
    assert torch.equal(made["m.projector.weight"], mean["m.projector.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_one_hospital_is_its_own_mean(name: str) -> None:
    start = adapter(0)
    update = sent_to(name, start)[0]
    made = rule(name).aggregate(ServerState({"adapter": start}), [update])
    assert error(changes(made), changes(ServerState({"adapter": {**start, **update.parts["adapter"]}}))) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_adapter_and_equal_hospitals_are_no_trouble(name: str) -> None:
    """In the first round B is zero before, and where nothing is learned it is so afterwards."""
    start = {each: torch.zeros_like(tensor) if "lora_B" in each else tensor for each, tensor in adapter(0).items()}
    updates = [replace(update, parts={"adapter": start}) for update in sent_to(name, start)]
    made = rule(name).aggregate(ServerState({"adapter": start}), updates)
    assert all(torch.isfinite(tensor).all() for group in made.groups.values() for tensor in group.values())
    assert all(change == pytest.approx(0) for change in changes(made).values())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.sampled_from([0.05, 0.3, 1.0]))
def test_product_is_the_nearest_of_its_rank_and_near_is_nearer_than_factors(seed: int, drift: float) -> None:
    start = adapter(seed)
    lost = {}
    for name in ("factors", "near", "product"):
        made, sent = after(name, start, drift=drift)
        lost[name] = lost_share(ServerState({"adapter": start}), sent, SAMPLES, made)
    assert lost["factors"] == lost_by_factors(start, sent, SAMPLES)
    assert lost["product"] <= lost["near"] * (1 + 1e-4)
    assert lost["near"] <= lost["factors"] * (1 + 1e-4)
    for layer in LAYERS:
        true = sum(count * dense(state, layer) for count, state in zip(SAMPLES, sent, strict=True)) / sum(SAMPLES)
        u, values, v = np.linalg.svd(true)
        np.testing.assert_allclose(changes(made)[layer], (u[:, :3] * values[:3]) @ v[:3], atol=1e-4)


def test_near_finds_the_best_combinations() -> None:
    """By SciPy's BFGS over the same weights, one layer at a time."""
    start, shares = adapter(0), np.array(SAMPLES) / sum(SAMPLES)
    made, sent = after("near", start)
    for layer in LAYERS:
        b, a = (np.stack([state[f"{layer}.lora_{each}.weight"].double().numpy() for state in sent]) for each in "BA")
        true = np.einsum("k,kij,kjl->il", shares, b, a)

        def missed(weights: np.ndarray, b: np.ndarray = b, a: np.ndarray = a, true: np.ndarray = true) -> float:
            q, p = weights.reshape(2, -1)
            return float(((np.tensordot(q, b, 1) @ np.tensordot(p, a, 1) - true) ** 2).sum())

        plain = np.concatenate([shares, shares])
        best = float(minimize(missed, plain).fun)
        found = float(((changes(made)[layer] - true) ** 2).sum())
        assert best < 0.97 * missed(plain)
        assert found == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("name", ["stacked", "residual"])
def test_rounds_with_a_residual_stay_exact(name: str) -> None:
    """The residual is for hospitals to compute with; what they change of the adapter is added to it in each round."""
    state = ServerState({"adapter": adapter(0)})
    for number in range(1, 5):
        before = changes(state)
        start = dict(state.groups["adapter"])
        updates = sent_to(name, start, drift=0.3, number=number)
        rest = {each: before[each] - dense(start, each) for each in LAYERS}
        mean = {
            each: np.average([dense(dict(one.parts["adapter"]), each) for one in updates], axis=0, weights=SAMPLES)
            for each in LAYERS
        }
        next_state = rule(name).aggregate(state, updates)
        assert error(changes(next_state), {each: mean[each] + rest[each] for each in LAYERS}) < 1e-6
        sent = [dict(update.parts["adapter"]) for update in updates]
        assert lost_share(state, sent, SAMPLES, next_state) < 1e-5
        ranks = {len(each) for key, each in next_state.groups["adapter-residual"].items() if "lora_A" in key}
        assert max(ranks) <= min(max(map(min, LAYERS.values())), 12 * number)
        if name == "stacked":
            kept = changes(ServerState({"adapter": next_state.groups["adapter"]}))
            for layer, whole in changes(next_state).items():
                u, values, v = np.linalg.svd(whole)
                np.testing.assert_allclose(kept[layer], (u[:, :3] * values[:3]) @ v[:3], atol=1e-4)
        else:
            mean_of_factors = weighted_mean(sent, SAMPLES)
            assert all(torch.equal(next_state.groups["adapter"][each], mean_of_factors[each]) for each in start)
        state = next_state


def test_rotated_hospitals_are_averaged_as_if_they_were_not() -> None:
    """The mean of factors falls apart where hospitals' bases are turned; Procrustes turns them back."""
    start = adapter(0)
    updates = sent_to("rotate", start, drift=0.05)
    turned = []
    for place, update in enumerate(updates):
        part = dict(update.parts["adapter"])
        turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(place)))
        for layer in LAYERS:
            part[f"{layer}.lora_A.weight"] = turn.T @ part[f"{layer}.lora_A.weight"]
            part[f"{layer}.lora_B.weight"] = part[f"{layer}.lora_B.weight"] @ turn
        turned.append(replace(update, parts={"adapter": part}))
    state, sent = ServerState({"adapter": start}), [dict(update.parts["adapter"]) for update in turned]
    for number in (0, 1):
        made = rule("rotate").aggregate(state, [replace(each, base_round=number) for each in turned])
        plain = lost_by_factors(start, sent, SAMPLES)
        assert lost_share(state, sent, SAMPLES, made) < 0.2 < plain


def test_one_factor_is_trained_and_the_other_stays() -> None:
    for name, frozen in (("freeze-a", "AA"), ("svd-b", "AA"), ("alternate", "AB")):
        assert "".join(rule(name).order(number, "north").local.frozen for number in (1, 2)) == frozen
    for number, letter in ((1, "A"), (2, "B")):
        start = adapter(0)
        made, _ = after("alternate", start, number=number)
        stays = {each for each in start if torch.equal(made.groups["adapter"][each], start[each])}
        assert stays == {each for each in start if f"lora_{letter}" in each}


def test_fedsvd_makes_the_rows_of_a_orthonormal() -> None:
    made, _ = after("svd-b", adapter(0))
    for layer in LAYERS:
        a = made.groups["adapter"][f"{layer}.lora_A.weight"]
        torch.testing.assert_close(a @ a.T, torch.eye(3), atol=1e-6, rtol=0)


def test_a_is_shared_and_b_stays() -> None:
    """The server never has a B, from which it could tell what a hospital's adapter is."""
    chosen, start = rule("share-a", strategy="fedprox", proximal_mu=0.5), adapter(0)
    order = chosen.order(1, "north")
    assert (order.start, order.keeps, order.local.frozen, order.local.proximal_mu) == ("joined", ("lora_B",), None, 0.5)
    updates = [
        replace(
            each, parts={"adapter": {key: one for key, one in each.parts["adapter"].items() if "lora_B" not in key}}
        )
        for each in sent_to("factors", start)
    ]
    made = chosen.aggregate(ServerState({"adapter": start}), updates)
    mean = weighted_mean([dict(each.parts["adapter"]) for each in updates], SAMPLES)
    assert made.groups["adapter"].keys() == mean.keys() == {each for each in start if "lora_B" not in each}
    assert all(torch.equal(made.groups["adapter"][each], mean[each]) for each in mean)
    assert lost_shares("share-a", ServerState({"adapter": start}), updates, made) == {"lost_share": {}}


def test_rules_join_strategies_or_say_why_not() -> None:
    start, prox = adapter(0), rule("alternate", strategy="fedprox", proximal_mu=0.5)
    assert (prox.order(2, "north").local.proximal_mu, prox.order(2, "north").local.frozen) == (0.5, "B")
    momentum = rule("freeze-a", strategy="fedavgm")
    state = ServerState({"adapter": start})
    for _ in range(2):
        state = momentum.aggregate(state, sent_to("freeze-a", start))
    assert not any("lora_A" in name for name in state.groups["adapter-momentum"])
    assert torch.equal(state.groups["adapter"]["m.one.lora_A.weight"], start["m.one.lora_A.weight"])
    for name in ("product", "stacked", "alternate", "residual", "svd-b", "near"):
        with pytest.raises(ValidationError, match=f"expected strategy fedavg or fedprox with lora_mean {name}"):
            rule(name, strategy="fedavgm")
    for name in set(NAMES) - {"factors"}:
        with pytest.raises(ValidationError, match="expected factors with strategy none"):
            rule(name, strategy="none")
