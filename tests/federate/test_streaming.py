"""Updates are read a tensor at a time: what is in memory does not grow with the number of hospitals."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest
import torch
from engine_samples import randomised, same
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tasks.engine.adapter import State
from tasks.engine.deltas import moved
from tasks.federate import robust
from tasks.federate.door import Expected, admit
from tasks.federate.lora_mean.lost import lost_shares
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.state import ServerState, Stored, Update, completed
from tasks.settings import StrategySettings

SHAPES = {
    "one.lora_A.weight": (2, 11),
    "one.lora_B.weight": (13, 2),
    "two.lora_A.weight": (2, 15),
    "two.lora_B.weight": (10, 2),
}
NAMES = [
    name for name in get_args(StrategySettings.model_fields["strategy"].annotation) if name not in ("none", "dpfedavg")
]  # without tensors at the server, and with a secret of the server


def state(seed: int) -> State:
    return randomised({name: torch.empty(shape) for name, shape in SHAPES.items()}, seed)


class Watched(Mapping[str, torch.Tensor]):
    """Tensors as of a file, made anew each time, that are counted while they are in memory."""

    def __init__(self, tensors: State, alive: set[int], most: list[int]) -> None:
        self.tensors, self.alive, self.most = tensors, alive, most

    def __getitem__(self, name: str) -> torch.Tensor:
        read = self.tensors[name].clone()
        self.alive.add(id(read))
        weakref.finalize(read, self.alive.discard, id(read))
        self.most[0] = max(self.most[0], len(self.alive))
        return read

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def updates(make: Callable[[State], State] = lambda tensors: tensors) -> list[Update]:
    return [Update(f"h{n}", 0, n + 1, 0.5, {"adapter": make(state(n))}, n + 1, "base") for n in range(9)]


def watched() -> tuple[list[Update], list[int]]:
    alive, most = set[int](), [0]
    return updates(lambda tensors: Watched(tensors, alive, most)), most


@pytest.mark.parametrize("name", NAMES)
def test_no_strategy_keeps_what_it_has_read(name: str) -> None:
    strategy = choose_rule(StrategySettings(strategy=name))  # type: ignore[arg-type]
    sent, most = watched()
    start = ServerState({"adapter": state(99)})
    made = strategy.aggregate(start, sent)
    assert 1 <= most[0] <= 2
    for group, tensors in strategy.aggregate(start, updates()).groups.items():
        assert same(tensors, made.groups[group])


@pytest.mark.parametrize("rule", ["factors", "product", "near"])
def test_a_rule_for_lora_reads_a_layer_at_a_time(rule: str) -> None:
    sent, most = watched()
    start = ServerState({"adapter": state(99)})
    made = choose_rule(StrategySettings(lora_mean=rule)).aggregate(start, sent)  # type: ignore[arg-type]
    lost_shares(rule, start, sent, made)
    assert 1 <= most[0] <= 2


def test_the_door_keeps_nothing() -> None:
    sent, most = watched()
    admitted, reasons = admit(
        {update.hospital: update for update in sent},
        Expected(1, "base", {"adapter": state(99)}, None),
        StrategySettings(),
    )
    assert len(admitted) == 9 and not reasons
    assert 1 <= most[0] <= 2


HOSPITALS, WIDTH = 48, 1_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[Update]:
    """Updates of 4 MB each, in files: 192 MB, and twice that in float64."""
    folder = tmp_path_factory.mktemp("large")
    for n in range(HOSPITALS):
        save_file({"a": torch.full((10, WIDTH // 10), float(n))}, folder / f"{n}.safetensors")
    return [
        Update(f"h{n}", 0, 1, 0.5, {"adapter": Stored(folder / f"{n}.safetensors")}, 1, "base")
        for n in range(HOSPITALS)
    ]


def peak(begin_anew: bool = False) -> int:
    """The largest memory that this process has had, in bytes, since it was last begun anew (Linux)."""
    if begin_anew:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux tells it")
@pytest.mark.parametrize("name", ["fedavg", "fednova", "median", "krum"])
def test_memory_does_not_hold_all_updates(name: str, large: list[Update], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robust, "BLOCK", 2**21)
    start, strategy = {"a": torch.zeros(10, WIDTH // 10)}, choose_rule(StrategySettings(strategy=name))  # type: ignore[arg-type]
    strategy.aggregate(ServerState({"adapter": state(99)}), updates())  # loads libraries
    before = peak(begin_anew=True)
    expected, sent = Expected(1, "base", {"adapter": start}, None), {each.hospital: each for each in large}
    strategy.aggregate(ServerState({"adapter": start}), admit(sent, expected, StrategySettings())[0])
    assert peak() - before < 128e6  # freed memory is not all given back at once


def test_large_tensors_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robust, "BLOCK", 9 * 4)
    start = state(99)
    deltas = robust.deltas_of([update.parts["adapter"] for update in updates()], start)
    widths = [block.shape[1] for block in deltas.blocks()]
    assert max(widths) == 4 and sum(widths) == sum(tensor.numel() for tensor in start.values())
    whole = moved(start, deltas.row(lambda block: block[3]))
    assert same({name: whole[name] for name in start}, state(3))


def test_a_stored_state_is_that_of_its_file(tmp_path: Path) -> None:
    save_file(dict(state(1)), tmp_path / "a.safetensors")
    stored = Stored(tmp_path / "a.safetensors")
    assert same(dict(stored), load_file(tmp_path / "a.safetensors"))
    assert same(dict(stored.items()), state(1))
    assert len(stored) == 4 and "one.lora_A.weight" in stored and "three" not in stored
    assert stored.get("three") is None
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-4])
    with pytest.raises(SafetensorError):
        Stored(tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError):
        Stored(tmp_path / "none.safetensors")


def test_what_a_hospital_did_not_send_is_the_servers() -> None:
    whole, part = state(1), {"one.lora_B.weight": torch.ones(13, 2)}
    assert same(dict(completed(part, whole)), {**whole, **part})
    assert completed(whole, part) is whole
