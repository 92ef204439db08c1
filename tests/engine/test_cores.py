"""The number of threads follows what others use of the cores; results do not follow the number."""

import itertools
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_samples import same
from hypothesis import given
from hypothesis import strategies as st

from tasks.engine import cores, shared
from tasks.engine.base import load_base
from tasks.engine.batch import encode
from tasks.engine.cores import Threads, Watch, allowance, number, usable, used
from tasks.engine.engine import Engine
from tasks.engine.identity import choose_model
from tasks.engine.prompt import build_prompt
from tasks.engine.train import train
from tasks.engine.vision import encode_images
from tasks.ingest import phantom
from tasks.settings import LoraSettings, ModelSettings

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def the_number_stays() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Machine:
    """A pretended machine: four cores, each core's seconds of use, this process's own, and the time."""

    def __init__(self, stat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stat, self.time, self.own, self.use = stat, 100.0, 5.0, [40.0, 40.0, 40.0, 40.0]
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(cores, "STAT", stat)
        monkeypatch.setattr(cores, "QUOTAS", stat.parent)
        monkeypatch.setattr(cores, "usable", lambda: frozenset(range(4)))
        clock = SimpleNamespace(monotonic=lambda: self.time, process_time=lambda: self.own, sleep=self.sleep)
        monkeypatch.setattr(cores, "time", clock)
        monkeypatch.setattr(Watch.__init__, "__defaults__", (None, clock.process_time))
        torch.set_num_threads(4)
        self.passes(0.0)

    def passes(self, seconds: float, own: float = 0.0, others: tuple[float, ...] = ()) -> None:
        """Some time, in which this process used `own` cores, and others a share of each of the first cores."""
        self.time, self.own = self.time + seconds, self.own + own * seconds
        for core, share in enumerate((own, *others)):  # whichever it ran on
            self.use[max(core - 1, 0)] += share * seconds
        lines = [f"cpu{core} {round(use * TICKS)} 0 0 77 88 0 0 0 0 0" for core, use in enumerate(self.use)]
        self.stat.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *lines, "intr 5 6"]) + "\n")

    def sleep(self, seconds: float) -> None:
        self.passes(seconds, others=(1.0,))  # others go on with what they do


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "stat", monkeypatch)


def test_it_leaves_the_cores_that_others_use(machine: Machine) -> None:
    threads = Threads()
    machine.passes(2.0, own=1.5, others=(1.0, 1.0))
    threads.settle()
    assert torch.get_num_threads() == 2
    machine.passes(0.9, own=2.0)
    threads.settle()
    assert torch.get_num_threads() == 2  # it is not time yet
    machine.passes(0.2, own=2.0)
    threads.settle()
    assert torch.get_num_threads() == 4  # the others have ended; its own two cores are not theirs
    machine.passes(1.0, own=0.5, others=(1.0, 1.0, 1.0, 1.0))
    threads.settle()
    assert torch.get_num_threads() == 1


def test_the_first_look_takes_a_moment_and_not_more(machine: Machine) -> None:
    threads = Threads()
    machine.passes(0.05)
    threads.settle()  # while it waits, another process has a core
    assert machine.time == pytest.approx(100 + cores.MOMENT)
    assert torch.get_num_threads() == 3
    threads.settle()
    assert machine.time == pytest.approx(100 + cores.MOMENT)


def test_each_thread_that_computes_gets_the_number(machine: Machine) -> None:
    """OpenMP keeps a number for each thread: one that has computed before has an old one."""
    threads, found = Threads(), list[int]()
    begun, chosen = threading.Event(), threading.Event()

    def stage() -> None:
        found.append(torch.get_num_threads())
        begun.set()
        chosen.wait(60)
        threads.settle()
        found.append(torch.get_num_threads())

    worker = threading.Thread(target=stage)
    worker.start()
    begun.wait(60)
    machine.passes(1.0, others=(1.0,))
    threads.settle()
    chosen.set()
    worker.join()
    assert found == [4, 3]


def test_what_the_user_has_set_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads = Threads()
    machine.passes(5.0, others=(1.0, 1.0, 1.0, 1.0))
    threads.settle()
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("quota", "chosen"), [("250000 100000", 2), ("max 100000", 4)])
def test_where_the_system_does_not_tell_only_its_bounds_count(machine: Machine, quota: str, chosen: int) -> None:
    (machine.stat.parent / "cpu.max").write_text(quota + "\n")
    machine.stat.unlink()
    machine.sleep = lambda seconds: None  # type: ignore[method-assign]
    Threads().settle()
    assert torch.get_num_threads() == chosen


def test_it_is_said_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fed_rag")
    threads = Threads()
    for others in ((), (1.0, 1.0), (), (1.0,)):
        machine.passes(1.0, others=others)
        threads.settle()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["others use the cores: computes with 2 of 4 threads while they do (OMP_NUM_THREADS sets a number)"]


@given(st.integers(1, 64), st.floats(0, 80), st.integers(1, 64))
def test_threads_and_others_fit_into_the_cores(count: int, taken: float, most: int) -> None:
    found = number(count, taken, most)
    assert 1 <= found <= most
    assert found == 1 or found + taken <= count + cores.SPARED
    assert found == most or found + 1 + taken > count + cores.SPARED  # nor is any left idle


def test_used_time_is_read_without_idle_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(cores, "STAT", stat)
    assert used() is None and Watch().others() is None
    stat.write_text("cpu  100 20 30 9999 8888 4 5 6 777 0\ncpu0 1 2 3 99 99 0 0 4 5 6\ncpu1 1 0 0 9 9 0 0 1\ncpu10 7\n")
    assert used() == 165 / TICKS  # guests, the last two, are in the first again
    assert used({0, 1}) == 12 / TICKS
    assert used({1}) == 2 / TICKS


@pytest.mark.parametrize(
    ("files", "cores_granted"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_containers_allowance_is_read(
    files: dict[str, str], cores_granted: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "QUOTAS", tmp_path)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert allowance() == cores_granted


def test_this_machine_is_read() -> None:
    assert usable() == os.sched_getaffinity(0)
    found = used(usable())
    assert found is None or found > 0


def test_beside_passes_the_number_is_torchs_own(machine: Machine) -> None:
    threads = Threads()
    machine.passes(1.0, others=(1.0, 1.0))
    threads.restore()
    assert torch.get_num_threads() == 4
    threads.settle()
    assert torch.get_num_threads() == 2
    threads.restore()
    assert torch.get_num_threads() == 4
    threads.settle()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("precision", "tower", "expected"),
    [
        ("float32", (), ["settle", "restore", "restore"]),
        ("bfloat16", (), []),
        ("float32", ("qkv",), []),
    ],
)
def test_it_is_chosen_before_each_pass_where_results_do_not_follow_it(
    precision: Any, tower: tuple[str, ...], expected: list[str], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = list[str]()
    monkeypatch.setattr(Threads, "settle", lambda _: called.append("settle"))
    monkeypatch.setattr(Threads, "restore", lambda _: called.append("restore"))
    model = choose_model(ModelSettings(name=str(tiny_folder), device="cpu", precision=precision))
    try:
        for _ in range(2):
            called.clear()
            with pytest.raises(ZeroDivisionError), shared.shared_engine(model, LoraSettings(tower_targets=tower)) as it:
                ids, patches = torch.ones(1, 3, dtype=torch.long), torch.zeros(16, 3 * 2 * 14 * 14)
                it.base.model.model(input_ids=ids, attention_mask=ids)
                it.base.model.model.visual(patches, grid_thw=torch.tensor([[1, 4, 4]]))
                assert called == expected[:2]
                raise ZeroDivisionError
            assert called == expected
            called.clear()
            it.base.model.model(input_ids=ids, attention_mask=ids)  # the same base, taken for something else
            assert not called
    finally:
        shared._engine.clear()
        shared._base.clear()


@pytest.mark.slow
def test_a_training_gives_the_same_bytes_with_any_number_and_when_it_changes() -> None:
    """The embedded base with its projector, on phantom's cases: products as large as those of a study."""
    source = phantom.read(images=8, seed=0, public=False, test_fraction=0.2)
    base = load_base("embedded", device="cpu")
    engine = Engine(base, r=8, alpha=16, dropout=0.1, targets=("q_proj", "v_proj", "down_proj"), projector=True)
    features = encode_images(base, source.images, projected=False)
    examples = encode(base, features, [build_prompt(each, ()) for each in source.cases[:96]])
    found = []
    for numbers in ((1,), (2,), (3, 1, 2, 4)):
        coming = itertools.cycle(numbers)
        change = base.model.model.language_model.register_forward_pre_hook(
            lambda *_, coming=coming: torch.set_num_threads(next(coming))
        )
        engine.switch(engine.initial_state(0))
        how: dict[str, Any] = {"batch_size": 16, "tokens": 640, "learning_rate": 3e-3, "seed": 1, "by_image": True}
        loss = train(engine, features, examples, epochs=2, **how)
        change.remove()
        found.append((loss, engine.read()))
    for loss, state in found[1:]:
        assert loss == found[0][0]
        assert same(state, found[0][1])
