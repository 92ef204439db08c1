"""Noise over the network, in processes of their own: the hospitals compute what they spent, and their word decides."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.rdp import RdpAccountant
from test_federation_processes import HOSPITALS, PORT, SETTINGS, Running, Start, place, start, words  # noqa: F401

from tasks.federate.privacy.accounting import ORDERS

NOISY = SETTINGS | {"federation.rounds": "1", "retrieval.k": "0"}
MOST = 2000.0


def agree(place: Path, **agreement: Any) -> None:  # noqa: F811
    for name in HOSPITALS:
        file = place / name / "hospital.yaml"
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        settings["agreement"] |= agreement
        file.write_text(json.dumps(settings), encoding="utf-8")


def coordinator(place: Path, start: Start, base: Path, settings: Mapping[str, str]) -> Running:  # noqa: F811
    given = words(NOISY | {"model.name": str(base)} | dict(settings))
    return start(place / "coordinator", "coordinator", "start", "../keys", "--listen", f"127.0.0.1:{PORT}", *given)


def told(place: Path) -> dict[str, Any]:  # noqa: F811
    return dict(json.loads((place / "coordinator/artifacts/latest/federation.json").read_text())["privacy"])


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_hospitals_tell_their_epsilon_and_refuse_what_exceeds_their_own(
    place: Path,  # noqa: F811
    start: Start,  # noqa: F811
    tiny_folder: Path,
) -> None:
    """Cases are hidden in the first study; the second, with another seed, is within its own epsilon, but not in all."""
    agree(place, privacy="example", epsilon=MOST)
    hospitals = {name: start(place / name, "hospital", "join") for name in HOSPITALS}
    noise = {"federation.privacy.unit": "example", "federation.privacy.epsilon": str(MOST)}
    noise |= {"federation.privacy.accountant": "rdp", "federation.privacy.delta": "0.01"}
    first = coordinator(place, start, tiny_folder, noise)
    first.wait_for("wrote artifacts/runs/")
    assert first.ends_with() == 0
    privacy = told(place)
    assert set(privacy["hospitals"]) == set(HOSPITALS) and privacy["unit"] == "example"
    for each in privacy["hospitals"].values():
        step = PoissonSampledDpEvent(each["rate"], GaussianDpEvent(each["sigma"]))
        accountant = RdpAccountant(orders=ORDERS).compose(SelfComposedDpEvent(step, each["steps"] * each["rounds"]))
        assert each["epsilon"] == pytest.approx(accountant.get_epsilon(0.01), rel=1e-9)
        assert each["rounds"] == 1 and MOST / 2 < each["epsilon"] <= MOST
    assert not list((place / "coordinator").rglob("noise.key"))
    keys = {(place / name / f"artifacts/hospitals/{name}/noise.key").read_bytes() for name in HOSPITALS}
    assert len(keys) == len(HOSPITALS)

    second = coordinator(place, start, tiny_folder, noise | {"seed": "1"})
    assert second.ends_with() == 1
    refusal = f"Expected an epsilon of at most {MOST:g} in all studies together, as it agreed to, found"
    assert refusal in second.said()
    for each in hospitals.values():
        each.wait_for(f"refused: {refusal}")


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_the_server_hides_hospitals_whose_word_on_epsilon_decides(
    place: Path,  # noqa: F811
    start: Start,  # noqa: F811
    tiny_folder: Path,
) -> None:
    agree(place, strategies=["dpfedavg"], epsilon=9e6)
    for name in HOSPITALS:
        start(place / name, "hospital", "join")
    noise = {"federation.privacy.unit": "hospital", "federation.strategy": "dpfedavg"}
    noise |= {"federation.privacy.accountant": "rdp", "federation.privacy.delta": "0.01"}
    refused = coordinator(place, start, tiny_folder, noise | {"federation.privacy.epsilon": "1e7"})
    assert refused.ends_with() == 1
    assert (
        "Expected federation.privacy.epsilon of at most 9000000.0, as it agreed to, found 10000000.0" in refused.said()
    )
    done = coordinator(place, start, tiny_folder, noise | {"federation.privacy.epsilon": "8e6"})
    done.wait_for("wrote artifacts/runs/")
    assert done.ends_with() == 0
    privacy = told(place)
    assert privacy["unit"] == "hospital" and 4e6 < privacy["epsilon"] <= 8e6
    assert (place / "coordinator/artifacts/coordinator/noise.key").exists()
