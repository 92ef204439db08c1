"""Memory that a stage has freed does not stay with the process, whichever thread the stage ran in."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.engine import freed, shared
from tasks.engine.identity import choose_model
from tasks.settings import ModelSettings

IN_PIECES = """
import re, threading, torch
from pathlib import Path
from tasks.engine.freed import give_back

def resident():
    return int(re.search(r"^VmRSS:\\s+(\\d+) kB$", Path("/proc/self/status").read_text(), re.M)[1]) // 1024

kept = []
def stage():
    tensors = [torch.ones(size) for size in [15_000, 100] * 2_000]  # 60 kB, and 400 bytes beside each
    kept.extend(tensors[1::2])

before = resident()
workers = [threading.Thread(target=stage) for _ in range(3)]
for worker in workers:
    worker.start()
    worker.join()
held = resident()
give_back()
print(before, held, resident())
"""
"""Three stages, in a thread each, leave a little of their memory in use everywhere: 360 MB are free in pieces."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is read from /proc")
def test_what_is_free_in_pieces_is_given_back() -> None:
    printed = subprocess.run([sys.executable, "-c", IN_PIECES], capture_output=True, check=True, text=True).stdout
    before, held, after = map(int, printed.split())
    assert held - before > 100  # the allocator has kept it: the test is of something
    assert after - before < (held - before) / 4


def test_it_happens_while_a_stage_goes_on_and_at_its_end(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [100.0], list[float]()
    monkeypatch.setattr(freed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(freed, "give_back", lambda: given.append(now[0]))
    model = choose_model(ModelSettings(name=str(tiny_folder), device="cpu"))
    ids: Any = torch.ones(1, 3, dtype=torch.long)
    try:
        for use in (shared.shared_base, shared.exclusive_base):
            monkeypatch.setattr(shared, "_freed", freed.Freed())
            given.clear()
            start = now[0]
            with use(model) as base:
                for _ in range(25):
                    base.model.model(input_ids=ids, attention_mask=ids)
                    now[0] += 1
            assert [each - start for each in given] == [10, 20, 25]
            with use(model) as base:  # a short one right after it
                now[0] += 0.5
            assert len(given) == 3
            now[0] += 0.5
            base.model.model(input_ids=ids, attention_mask=ids)
            assert len(given) == 3  # the base is not watched beside stages
    finally:
        shared._engine.clear()
        shared._base.clear()


def test_compiled_products_are_bounded() -> None:
    """Each number of rows compiles its own: oneDNN's caches must be told before the first."""
    program = (
        "import os, tasks; print(*(os.environ[n] for n in ('ONEDNN_PRIMITIVE_CACHE_CAPACITY', 'LRU_CACHE_CAPACITY')))"
    )
    bounds = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert [int(word) for word in re.findall(r"\d+", bounds)] == [64, 64]
