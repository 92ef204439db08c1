"""Linear layers computed by oneDNN are torch's own up to rounding: values, gradients, and what is left alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import prompts_with_neighbours, randomised
from family_samples import every_family
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine.base import Base
from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.fast.onednn import Linear, use_onednn, use_the_faster
from tasks.engine.loss import answer_loss
from tasks.engine.vision import Features


def twins(inside: int, outside: int, bias: bool) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """Torch's layer and ours with the same frozen weights."""
    plain = torch.nn.Linear(inside, outside, bias=bias).requires_grad_(False)
    holder = torch.nn.Sequential(torch.nn.Linear(inside, outside, bias=bias)).requires_grad_(False)
    holder[0].load_state_dict(plain.state_dict())
    use_onednn(holder)
    assert isinstance(holder[0], Linear)
    return plain, holder[0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 40), st.integers(1, 40), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_values_and_gradients_are_those_of_torch(
    shape: list[int], inside: int, outside: int, bias: bool, turned: bool
) -> None:
    torch.manual_seed(0)
    plain, ours = twins(inside, outside, bias)
    found = []
    for layer in (plain, ours):
        x = torch.randn(*shape, inside, generator=torch.Generator().manual_seed(1))
        if turned:  # not contiguous
            x = x.transpose(0, -1).contiguous().transpose(0, -1)
        x.requires_grad_()
        made = layer(x)
        (made.sin() * 3).sum().backward()
        found.append((made.detach(), x.grad))
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("maker", "used"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, True)])
def test_it_is_used_but_on_processors_that_mkl_is_made_for(maker: str | None, used: bool, tmp_path: Path) -> None:
    """None stands for a system that has no such file."""
    if maker:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4))
    use_the_faster(model, tmp_path / "cpuinfo")
    assert isinstance(model[0], Linear) == used


LONG = """
import hashlib, torch
import {module}
source = torch.Generator().manual_seed(0)
one, other = (torch.randn(shape, generator=source) for shape in ((16, 5000), (5000, 128)))
print(hashlib.sha256((one @ other).numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("module", ["tasks.engine.base", "tasks.retrieve.fusion", "tasks.federate.means"])
def test_two_threads_multiply_as_one_does(module: str) -> None:
    """As the gradient of LoRA's factors does, this product adds up thousands of numbers for each of its own."""
    given = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    found = {
        subprocess.run(
            [sys.executable, "-c", LONG.format(module=module)],
            env=given | {"OMP_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("change", ["trained", "half"])
def test_where_it_is_not_for_it_is_torchs_own(change: str) -> None:
    plain, ours = twins(8, 8, True)
    x: Any = torch.randn(3, 8)
    for layer in (plain, ours):
        layer.requires_grad_() if change == "trained" else layer.to(torch.bfloat16)
    x = x.to(plain.weight.dtype)
    assert torch.equal(plain(x), ours(x))
    if change == "trained":
        ours(x).sum().backward()
        assert ours.weight.grad is not None
        assert ours.weight.grad.abs().sum() > 0


@every_family
def test_a_model_gives_the_same_losses_and_gradients(engine: Engine, features: Features) -> None:
    base: Base = engine.base
    use_onednn(base.model)
    engine.switch(randomised(engine.read(), 1))
    batch = collate(base, features, encode(base, features, prompts_with_neighbours()))
    ours = [module for module in base.model.modules() if type(module) is Linear]
    assert len(ours) > 10
    found = []
    for kind in (Linear, torch.nn.Linear):
        for module in ours:
            module.__class__ = kind
        loss = answer_loss(base, batch)
        found.append([loss.detach(), *torch.autograd.grad(loss, engine.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
