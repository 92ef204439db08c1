"""A mixture of adapters, with whole matrices."""

import torch

from tasks.federate.personalise.mixture import mixed


def test_a_mixture_with_a_residual_is_the_mean_of_what_both_change() -> None:
    generator = torch.Generator().manual_seed(0)

    def pair(kind: str, rank: int) -> dict[str, torch.Tensor]:
        a, b = torch.randn(rank, 7, generator=generator), torch.randn(5, rank, generator=generator)
        return {f"x.{kind}_A.weight": a, f"x.{kind}_B.weight": b}

    own, lora, residual = pair("lora", 2), pair("lora", 2), pair("residual", 4)

    def change(state: dict[str, torch.Tensor], kind: str) -> torch.Tensor:
        return state[f"x.{kind}_B.weight"] @ state[f"x.{kind}_A.weight"]

    state = mixed(own, lora | residual, 0.3)
    for_all = change(lora, "lora") + change(residual, "residual")
    torch.testing.assert_close(
        change(state, "lora") + change(state, "residual"), 0.3 * change(own, "lora") + 0.7 * for_all
    )
    assert state["x.residual_A.weight"].shape == (6, 7)
    assert torch.equal(change(mixed(own, lora, 1.0), "lora"), change(own, "lora"))
