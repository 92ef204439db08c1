"""Epsilon against published values, against the exact Gaussian mechanism, and what a plan says of it."""

import json
import math

import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from flows.cli import main as cli
from tasks.errors import StudyError
from tasks.federate.privacy.accounting import Accountant, epsilon, sigma_for, steps_within
from tasks.federate.privacy.plan import Training, plan, refusal
from tasks.settings import PrivacySettings


@pytest.mark.parametrize(
    ("sigma", "rdp", "pld"),
    [(0.8, 8.2, 7.3), (1.0, 5.0, 4.5), (1.5, 2.5, 2.2)],
)
def test_epsilon_is_the_published_one(sigma: float, rdp: float, pld: float) -> None:
    """Of 2,000 cases in batches of 64 by 468 steps, delta 1e-5."""
    found = [epsilon(sigma, 64 / 2000, 468, 1e-5, accountant) for accountant in ("rdp", "pld")]
    assert found == [pytest.approx(rdp, abs=0.06), pytest.approx(pld, abs=0.06)]


def gaussian_delta(epsilon: float, sigma: float) -> float:
    """The exact delta of the Gaussian mechanism (Balle and Wang, arXiv 1805.06530, theorem 8)."""
    return float(norm.cdf(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma))


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 1), (5.0, 9)])
@pytest.mark.parametrize(("accountant", "within"), [("pld", 0.001), ("rdp", 0.3)])
def test_epsilon_without_sampling_is_the_exact_one(
    sigma: float, steps: int, accountant: Accountant, within: float
) -> None:
    """Gaussian noise of `steps` releases is that of one with less: sigma / sqrt(steps). RDP is a bound above."""
    found = epsilon(sigma, 1.0, steps, 1e-5, accountant)
    low, high = found * (1 - within), found
    assert gaussian_delta(high, sigma / steps**0.5) <= 1e-5 * (1 + 1e-6) < gaussian_delta(low, sigma / steps**0.5)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon(1.0, 0.1, 0, 1e-5) == 0


@pytest.mark.parametrize(("rate", "steps", "most"), [(0.032, 100, 1.0), (0.25, 16, 0.5), (1.0, 5, 1.0)])
@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_the_noise_that_is_found_is_the_least(rate: float, steps: int, most: float, accountant: Accountant) -> None:
    sigma = sigma_for(most, rate, steps, 1e-5, accountant)
    assert epsilon(sigma, rate, steps, 1e-5, accountant) <= most < epsilon(0.99 * sigma, rate, steps, 1e-5, accountant)


@pytest.mark.parametrize("asked", [0, 1, 5, 9, 40])
def test_steps_stop_before_epsilon_is_exceeded(asked: int) -> None:
    most, sigma, rate = 2.0, 1.0, 0.1
    found = steps_within(most, sigma, rate, 1e-5, asked, "rdp")
    fits = [steps for steps in range(asked + 1) if epsilon(sigma, rate, steps, 1e-5, "rdp") <= most]
    assert found == max(fits)


HOSPITALS = Training("hospital", 8, 8, 5, 100_000)


def test_hospitals_of_eight_cannot_be_hidden() -> None:
    """Epsilon 8 in 5 rounds wants noise of 56 times the clipped signal at 100,000 parameters ; 358 for epsilon 1."""
    for most, ratio in ((8, 56), (1, 358)):
        found = plan(HOSPITALS, PrivacySettings(epsilon=most, accountant="rdp"))
        assert found.noise_to_signal == pytest.approx(ratio, rel=0.01)
        assert found.hopeless
    sentence = refusal(found, PrivacySettings(accountant="rdp"))
    assert "found 160.2 times the largest signal after 5 steps (358 times in one step)" in sentence
    assert "8 of 8 hospitals train 100,000 parameters with sigma 9.06" in sentence
    assert "join many more hospitals" in sentence


def test_examples_can_be_hidden() -> None:
    found = plan(Training("example", 2000, 64, 468, 100_000), PrivacySettings(sigma=1.0))
    assert (found.epsilon["rdp"], found.epsilon["pld"]) == (
        pytest.approx(4.98, abs=0.01),
        pytest.approx(4.46, abs=0.01),
    )
    assert found.noise_to_signal == pytest.approx(100_000**0.5 / 64)
    assert found.noise_to_signal_at_the_end == pytest.approx(0.228, abs=0.001)
    assert not found.hopeless


def test_a_delta_that_protects_nobody_is_refused() -> None:
    with pytest.raises(StudyError, match=r"Expected federation\.privacy\.delta below 1/2000, found 0\.001"):
        plan(Training("example", 2000, 64, 1, 10), PrivacySettings(delta=1e-3, sigma=1.0))


SETTINGS = ("--set", "federation.privacy.sigma=2", "--set", "federation.batch_size=50", "--set", "federation.rounds=2")


def test_the_command_tells_each_unit() -> None:
    given = ["privacy", "plan", "--cases", "1001", "--patients", "40", "--parameters", "400", *SETTINGS, "--json"]
    example, patient, hospital = json.loads(CliRunner().invoke(cli.app, given).output)
    assert example["training"] == {
        "unit": "example",
        "units": 1001,
        "drawn": 50,
        "steps": 42,
        "parameters": 400,
        "joined": 4,
    }
    assert patient["training"] == {
        "unit": "patient",
        "units": 40,
        "drawn": 40,
        "steps": 2,
        "parameters": 400,
        "joined": 4,
    }
    assert hospital["training"]["steps"] == 2
    assert example["noise_to_signal"] == pytest.approx(2 * 20 / 50 / 4**0.5)
    assert [each["hopeless"] for each in (example, patient, hospital)] == [False, False, True]


def test_the_table_fits_a_narrow_terminal() -> None:
    printed = (
        CliRunner()
        .invoke(cli.app, ["privacy", "plan", "--parameters", "4000", *SETTINGS], env={"COLUMNS": "80"})
        .output
    )
    assert "Privacy for sigma 2, delta 1e-05" in printed
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith(("example", "hospital"))]
    assert rows[0][:4] == ["example", "50", "of", "2,000"]
    assert rows[0][-1] == "possible"
    assert rows[1][-1] == "hopeless"
    assert "hospital: Expected noise below the signal" in " ".join(printed.split())
