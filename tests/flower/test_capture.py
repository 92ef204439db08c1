"""A secure sum between real processes, with all traffic captured: nothing of a case is on the wire or in a message.

Hospitals' exports have canaries in each place that can hold a text (`test_canaries.table`). The capture is searched as
it passes, under TLS, and as the coordinator has it after decryption, in plain and in hashed forms.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tapped import Tap, recording
from test_canaries import Planted, table, traces_of
from test_federation_processes import Running, Start, start, words  # noqa: F401

from flows.runtimes.flower.keys import make_keys
from flows.sum_keys import make_sum_key
from tasks.federate.privacy.masked import masked_mean
from tasks.federate.state import read_update
from tasks.records.federation import ADAPTER_FILE

HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
PORT = 41000 + 2 * (os.getpid() % 9000)
SETTINGS = {
    "federation.rounds": "1",
    "federation.secure_aggregation": "true",
    "federation.compare_images": "true",
    "federation.holdout": "0.25",
    "lora.r": "4",
    "evaluation.min_cell": "1",
    "evaluation.max_new_tokens": "4",
    "evaluation.reliance": "4",
    "evaluation.saliency": "0",
}


def write_hospital(place: Path, name: str, base: Path) -> Planted:
    """A hospital's export, its folder with settings, and its key for secure sums."""
    planted = table(place / "exports" / name)
    folder = place / name
    folder.mkdir()
    make_sum_key(folder / "sum.key", name)
    settings = {
        "name": name,
        "disjoint": "image",
        "dataset": {"name": "table", "root": str(place / "exports" / name), "test_fraction": 0.3},
        "model": {"name": str(base)},
        "coordinator": {
            "address": f"127.0.0.1:{PORT}",
            "authority": str(place / "keys/ca.crt"),
            "key": str(place / "keys/hospitals" / name / "node.key"),
        },
        "agreement": {"secure_aggregation": True, "shared_images": True, "min_cell": 1, "group_scores": True},
    }
    (folder / "hospital.yaml").write_text(json.dumps(settings), encoding="utf-8")
    return planted


def exchange_keys(place: Path) -> None:
    """Each hospital gets the public key of each other one."""
    for name in HOSPITALS:
        (place / name / "others").mkdir()
        for other in HOSPITALS:
            if other != name:
                shutil.copy(place / other / "sum.key.pub", place / name / "others" / f"{other}.pub")


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_a_capture_holds_nothing_of_a_case_and_the_sum_is_that_of_a_simulation(
    tmp_path: Path,
    start: Start,  # noqa: F811
    tiny_folder: Path,
) -> None:
    make_keys(tmp_path / "keys", HOSPITALS, ["127.0.0.1"], days=2)
    planted = {name: write_hospital(tmp_path, name, tiny_folder) for name in HOSPITALS}
    exchange_keys(tmp_path)
    tap, messages = Tap(tmp_path / "wire", PORT, PORT + 1), tmp_path / "messages"
    given = words(SETTINGS | {"model.name": str(tiny_folder)})
    command = ["coordinator", "start", "../keys", "--listen", f"127.0.0.1:{PORT + 1}", *given]
    coordinator = start(tmp_path / "coordinator", *command, command=recording(messages))
    coordinator.wait_for("listening on")
    hospitals = {name: start(tmp_path / name, "hospital", "join") for name in HOSPITALS}
    coordinator.wait_for("hospitals compared images: ")
    coordinator.wait_for("wrote artifacts/runs/")
    assert coordinator.ends_with() == 0
    for each in hospitals.values():
        each.wait_for("takes part in the secure sum of round 1")
        each.end()
    tap.close()

    assert_the_sum_is_that_of_a_simulation(tmp_path)
    assert_the_capture_is_one(tap, messages)
    for name in HOSPITALS:
        traces = traces_of(planted[name], tmp_path / "exports" / name, tmp_path / name / "artifacts")
        assert traces.found([tmp_path / name / f"artifacts/hospitals/{name}"])  # it is there, and would be found
        assert traces.found([tmp_path / "wire", messages, tmp_path / "coordinator"]) == {}
        assert not traces.within(coordinator.said())


def assert_the_sum_is_that_of_a_simulation(place: Path) -> None:
    """Bit for bit, of the updates that are found at the hospitals alone."""
    folders = [next((place / name / "artifacts/shared/update").glob("*")) for name in HOSPITALS]
    expected, counts = masked_mean([read_update(folder, tensors=True) for folder in folders])
    artifacts = place / "coordinator/artifacts/shared"
    (summed,) = (artifacts / "secure-mean").glob("*")
    found = load_file(summed / ADAPTER_FILE)
    assert found.keys() == expected.groups["adapter"].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.groups["adapter"].items())
    assert json.loads((summed / "update.json").read_text())["samples"] == counts.samples
    assert not (artifacts / "update").exists()


def assert_the_capture_is_one(tap: Tap, messages: Path) -> None:
    """What the coordinator heard is whole, and on the wire none of it can be read."""
    heard = [path.read_bytes() for path in messages.iterdir()]
    for told in (b"validation.json", b"scores/scores.json", b"hospital-1", b"MaskedUpdate", b"Revealed"):
        assert any(told in each for each in heard), told
        assert told not in tap.bytes()
    assert not any(ADAPTER_FILE.encode() in each for each in heard)
    assert len(tap.bytes()) > sum(map(len, heard))
    assert tap.bytes().count(b"\x16\x03\x01") >= len(HOSPITALS)  # each begins with TLS's ClientHello
