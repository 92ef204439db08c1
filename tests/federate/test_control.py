"""SCAFFOLD against the paper's algorithm in plain NumPy, with gradient descent as in the paper."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tasks.federate.control import Controlled, after
from tasks.federate.state import ServerState, Update
from tasks.federate.strategies.strategy import choose
from tasks.records.federation import CONTROL_FILE
from tasks.settings import StrategySettings
from tasks.store import writing

RATE, STEPS, ROUNDS = 0.05, 7, 5
SAMPLES = [1, 3, 4]


def problems() -> list[tuple[np.ndarray, np.ndarray]]:
    """Each hospital's least squares |Ax - b|^2 / 2, with solutions far apart."""
    random = np.random.default_rng(0)
    return [(random.normal(size=(4, 3)), 5 * random.normal(size=4)) for _ in SAMPLES]


def gradient(problem: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    a, b = problem
    return a.T @ (a @ x - b)


def by_the_paper(rounds: int) -> list[np.ndarray]:
    """The server's weights after each round: algorithm 1 with option II, weighted by samples."""
    x, c, own = np.zeros(3), np.zeros(3), [np.zeros(3) for _ in SAMPLES]
    share, found = np.array(SAMPLES) / sum(SAMPLES), []
    for _ in range(rounds):
        steps, changes = [], []
        for number, problem in enumerate(problems()):
            y = x.copy()
            for _ in range(STEPS):
                y = y - RATE * (gradient(problem, y) - own[number] + c)
            new = own[number] - c + (x - y) / (STEPS * RATE)
            steps.append(y - x)
            changes.append(new - own[number])
            own[number] = new
        x, c = x + share @ np.array(steps), c + share @ np.array(changes)
        found.append(x)
    return found


def by_us(rounds: int) -> list[np.ndarray]:
    state, strategy = ServerState({"adapter": {"x": torch.zeros(3)}}), choose(StrategySettings(strategy="scaffold"))
    own: list[dict[str, torch.Tensor]] = [{} for _ in SAMPLES]
    found = []
    for number in range(rounds):
        sent = []
        for place, problem in enumerate(problems()):
            start = state.groups["adapter"]
            correct = Controlled(start, state.groups.get("adapter-control", {}), own[place])
            x = torch.nn.Parameter(start["x"].clone())
            optimiser = torch.optim.SGD([x], lr=RATE)
            for _ in range(STEPS):
                x.grad = torch.from_numpy(gradient(problem, x.detach().double().numpy())).float()
                correct({"x": x})
                optimiser.step()
            parts = {"adapter": {"x": x.detach()}, "adapter-control": correct.change()}
            sent.append(Update(f"h{place}", number, SAMPLES[place], 0.5, parts, STEPS))
            change = correct.change()
            own[place] = {"x": own[place]["x"] + change["x"]} if own[place] else change
        state = strategy.aggregate(state, sent)
        found.append(state.groups["adapter"]["x"].numpy())
    return found


def test_each_round_is_that_of_the_paper() -> None:
    for found, expected in zip(by_us(ROUNDS), by_the_paper(ROUNDS), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_it_ends_where_all_hospitals_together_would() -> None:
    """Averaging alone does not, since each hospital's steps go to its own solution."""
    share = np.array(SAMPLES) / sum(SAMPLES)
    best = np.linalg.solve(
        sum(s * a.T @ a for s, (a, _) in zip(share, problems(), strict=True)),
        sum(s * a.T @ b for s, (a, b) in zip(share, problems(), strict=True)),
    )
    np.testing.assert_allclose(by_us(300)[-1], best, atol=1e-3)


def test_a_tensor_without_gradient_counts_as_zero() -> None:
    start = {"x": torch.zeros(2)}
    correct = Controlled(start, {}, {"x": torch.ones(2)})
    correct({"x": torch.nn.Parameter(torch.zeros(2))})
    assert correct.change()["x"].tolist() == [-1, -1]


@pytest.mark.parametrize("first", [True, False])
def test_a_hospital_keeps_what_it_was_plus_the_change(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = []
    for key, value in (("0", 1.0), ("1", 0.25)):
        with writing("shared", "update", key) as folder:
            folder.write(CONTROL_FILE, save({"x": torch.full((2,), value)}))
        folders.append(folder.ref.folder)
    found = after(None if first else folders[0], folders[1])
    assert found["x"].tolist() == [0.25, 0.25] if first else [1.25, 1.25]
