"""Requests a second and latencies of `fed-rag serve` on loopback, beside one question at a time without it.

    python benchmarks/serve.py HOSPITAL [--requests 200] [--batch 32] [--wait-ms 20]

Needs a finished run (`fed-rag run`). Each client sends its next question when the last one is answered; questions are
the hospital's own images and texts, in turn. The service runs in a process of its own. The reference answers the same
questions one after the other in this process, with library and base in memory, without HTTP, batches, caches or a log.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import asyncio
import hashlib
import itertools
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np

from tasks.records import Case, Image, read_images, read_table
from tasks.store import ROOT
from tasks.store.runs import open_run

CLIENTS = (1, 8, 32)
TOKEN = "benchmark"
Question = tuple[Image, str]


def questions(hospital: str) -> list[Question]:
    """The hospital's images with a question each."""
    folders = open_run(ROOT / "latest")[1]["hospitals"][hospital]
    folder = ROOT / folders["cases"]
    texts = {case.image_id: case.question for case in read_table(folder / "cases.parquet", Case)}
    return [(image, texts[image.id]) for image in read_images(folder / "images.parquet") if image.id in texts]


def one_at_a_time(hospital: str, asked: list[Question], count: int) -> list[float]:
    """Seconds of each answer."""
    from flows.serve.answerer import answer_all
    from flows.serve.desk import open_desk
    from flows.serve.place import open_place

    desk = open_desk(open_place(ROOT / "latest", hospital))
    seconds = []
    for place, (image, text) in enumerate(itertools.islice(itertools.cycle(asked), count + 3)):
        started = time.perf_counter()
        answer_all(desk, [(replace(image, id=f"asked-{place}"), text)])
        seconds.append(time.perf_counter() - started)
    return seconds[3:]  # the first ones load the base


@contextmanager
def serving(hospital: str, batch: int, wait_ms: float) -> Iterator[str]:
    """The service in a process of its own; gives its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        tokens = Path(folder) / "tokens"
        tokens.write_text(f"benchmark:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n", encoding="utf-8")
        words = ["serve", "--hospital", hospital, "--port", f"{port}", "--tokens", str(tokens), "--rate", "1000000"]
        words += ["--batch", f"{batch}", "--wait-ms", f"{wait_ms}"]
        command = [sys.executable, "-c", "from flows.cli.main import main; main()", *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(transport=httpx.HTTPTransport(retries=9)) as client:  # waits longer each time
                client.get(f"{url}/ready", timeout=120).raise_for_status()
            yield url
        finally:
            process.terminate()
            process.wait()


async def load(url: str, asked: list[Question], clients: int, count: int) -> tuple[list[float], float]:
    """Seconds of each request, and of all together."""
    left, seconds = iter(itertools.islice(itertools.cycle(asked), count)), []
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=300) as client:

        async def ask_on() -> None:
            for image, text in left:
                started = time.perf_counter()
                reply = await client.post("/v1/ask", files={"image": image.data}, data={"question": text})
                reply.raise_for_status()
                seconds.append(time.perf_counter() - started)

        started = time.perf_counter()
        await asyncio.gather(*(ask_on() for _ in range(clients)))
        return seconds, time.perf_counter() - started


def tell(name: str, seconds: list[float], whole: float) -> None:
    """One line of the table."""
    p50, p95, p99 = (1000 * np.percentile(seconds, (50, 95, 99))).tolist()
    print(f"{name:22} {len(seconds) / whole:10.1f} {p50:8.0f} {p95:8.0f} {p99:8.0f}", flush=True)


def main() -> None:
    """Print a line for the reference and for each number of clients."""
    parser = argparse.ArgumentParser()
    parser.add_argument("hospital")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--wait-ms", type=float, default=20)
    given = parser.parse_args()
    asked = questions(given.hospital)
    print(f"{'':22} {'requests/s':>10} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}")
    alone = one_at_a_time(given.hospital, asked, given.requests)
    tell("one at a time, no HTTP", alone, sum(alone))
    with serving(given.hospital, given.batch, given.wait_ms) as url:
        asyncio.run(load(url, asked, 1, 5))
        for clients in CLIENTS:
            tell(f"{clients} clients", *asyncio.run(load(url, asked, clients, given.requests)))


if __name__ == "__main__":
    main()
