"""The noisy mean of hospitals' updates: clipping, equal weights, and noise by its distribution."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tasks.errors import StudyError
from tasks.federate.privacy.dp_fedavg import noisy_mean
from tasks.federate.state import ServerState, Update
from tasks.federate.strategies.strategy import choose
from tasks.settings import PrivacySettings, StrategySettings

SECRET = bytes(range(32))


def drawn(seed: int, scale: float = 1.0, size: int = 200) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(size, 3, generator=generator) for name in ("b", "a")}


def flat(state: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([state[name].double().numpy().ravel() for name in sorted(state)])


def test_without_noise_it_is_the_mean_of_clipped_steps() -> None:
    start, updates = drawn(0), [drawn(seed, scale) for seed, scale in ((1, 1.0), (2, 5.0), (3, 0.1))]
    clip = 40.0
    steps = [flat(each) - flat(start) for each in updates]
    norms = [np.linalg.norm(step) for step in steps]
    assert min(norms) < clip < max(norms)
    expected = flat(start) + np.mean(
        [step * min(1, clip / norm) for step, norm in zip(steps, norms, strict=True)], axis=0
    )
    np.testing.assert_allclose(flat(noisy_mean(start, updates, clip, 0.0, SECRET)), expected, rtol=0, atol=1e-6)


def test_noise_has_the_stated_size() -> None:
    """In the mean of n updates, sigma * clip / n."""
    start = drawn(0, size=5000)
    noise = flat(noisy_mean(start, [start] * 4, 2.0, 3.0, SECRET)) - flat(start)
    assert kstest(noise, "norm", args=(0, 2.0 * 3.0 / 4)).pvalue > 1e-3


def test_no_two_sums_have_the_same_noise() -> None:
    """Their difference would tell what was added up: the noise follows from it, and from the secret."""
    start = drawn(0)
    first = flat(noisy_mean(start, [start] * 2, 1.0, 1.0, SECRET))
    np.testing.assert_array_equal(first, flat(noisy_mean(start, [start] * 2, 1.0, 1.0, SECRET)))
    nearly = {name: tensor + 1e-6 for name, tensor in start.items()}
    for updates, secret in (([start, nearly], SECRET), ([start] * 2, bytes(32))):
        other = flat(noisy_mean(start, updates, 1.0, 1.0, secret))
        assert abs(np.corrcoef(first - flat(start), other - flat(start))[0, 1]) < 0.2


def test_the_strategy_counts_each_hospital_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = StrategySettings(strategy="dpfedavg", privacy=PrivacySettings(unit="hospital", sigma=1e-9, clip=1e6))
    start = ServerState({"adapter": drawn(0)})
    updates = [Update(f"h{n}", 0, 10**n, 0.5, {"adapter": drawn(n)}) for n in (1, 2)]
    found = choose(settings).aggregate(start, updates).groups["adapter"]
    np.testing.assert_allclose(flat(dict(found)), (flat(drawn(1)) + flat(drawn(2))) / 2, rtol=0, atol=1e-2)
    assert (tmp_path / "artifacts/coordinator/noise.key").stat().st_size == 32
    with pytest.raises(StudyError, match=r"Expected federation\.privacy\.sigma for dpfedavg, found none"):
        choose(StrategySettings(strategy="dpfedavg")).aggregate(start, updates)
