"""The parts of the service that need no model: tokens, rate, batches, the hospital's log, and refusals."""

import hashlib
import json
import math
import os
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.serve.answered import Answered
from flows.serve.asked_log import LOG, Entry, append, erase
from flows.serve.batcher import Batcher, FullError
from flows.serve.drift import Drift, Yardstick
from flows.serve.known_images import KnownImages
from flows.serve.rate import RateLimit
from flows.serve.tokens import TokenFile, name_of, parse
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.records import Case


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_a_token_file_names_tokens_by_name_or_line() -> None:
    known = parse(f"# wards\nward-3:{hashed('one')}\n\n{hashed('two')}\n", "tokens.txt")
    assert known == {"ward-3": hashed("one"), "line-4": hashed("two")}
    assert [name_of(token, known) for token in ("one", "two", "three", "", hashed("one"))] == [
        "ward-3",
        "line-4",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("secret", "row 1, found something else"),
        (f"a:{hashed('x')}\na:{hashed('y')}", "row 2, found a second one of the same name"),
        (f"a:{hashed('x').upper()}", "row 1, found something else"),
        ("# nothing\n", "found none"),
    ],
)
def test_a_wrong_token_file_is_one_sentence_that_quotes_no_token(text: str, found: str) -> None:
    with pytest.raises(StudyError, match=found) as error:
        parse(text, "tokens.txt")
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "tokens.txt"
    file.write_text(f"old:{hashed('one')}\n")
    tokens = TokenFile(file)
    assert name_of("one", tokens.known()) == "old"
    file.write_text(f"old:{hashed('one')}\nnew:{hashed('two')}\n")
    assert {name_of(token, tokens.known()) for token in ("one", "two")} == {"old", "new"}
    file.write_text(f"new:{hashed('two')}\n")
    assert name_of("one", tokens.known()) is None
    for damage in (lambda: file.write_text("what\n"), lambda: file.write_bytes(b"\xff"), file.unlink):
        damage()
        for _ in range(2):  # never the tokens of before
            with pytest.raises(StudyError):
                tokens.known()


def test_a_rate_is_a_bucket_that_is_refilled_for_each_name() -> None:
    now = 0.0
    rate = RateLimit(3, lambda: now)
    assert [rate.wait_s("a") for _ in range(4)] == [0, 0, 0, 20]
    assert rate.wait_s("b") == 0
    now = 15
    assert rate.wait_s("a") == pytest.approx(5)
    now = 20
    assert rate.wait_s("a") == 0
    assert rate.wait_s("a") == pytest.approx(20)
    now = 10_000
    assert [rate.wait_s("a") > 0 for _ in range(4)] == [False, False, False, True]


def in_batches(
    most: int, wait_s: float, depth: int = 100
) -> tuple[Batcher[int, int], list[list[int]], threading.Event]:
    """A batcher that doubles, the batches that it made, and the event without which it does not go on."""
    seen: list[list[int]] = []
    go = threading.Event()

    def double(batch: list[int]) -> list[int]:
        go.wait(10)
        seen.append(batch)
        if 13 in batch:
            raise ValueError("13")
        return [2 * each for each in batch]

    return Batcher(double, most, wait_s, depth), seen, go


def wait_until_taken(batcher: Batcher[int, int]) -> None:
    while batcher.waiting():
        time.sleep(0.001)


def test_requests_that_wait_are_handled_together_in_their_order() -> None:
    batcher, seen, go = in_batches(4, 0)
    first = batcher.submit(0)
    wait_until_taken(batcher)
    rest = [batcher.submit(each) for each in range(1, 7)]
    go.set()
    assert [future.result(10) for future in (first, *rest)] == [0, 2, 4, 6, 8, 10, 12]
    assert seen == [[0], [1, 2, 3, 4], [5, 6]]
    batcher.close()


def test_the_first_request_waits_no_longer_than_it_must() -> None:
    batcher, seen, go = in_batches(2, 5)
    go.set()
    start = time.monotonic()
    assert [future.result(10) for future in (batcher.submit(1), batcher.submit(2))] == [2, 4]
    assert time.monotonic() - start < 4  # a full batch waits for nobody
    batcher.close()
    batcher, seen, go = in_batches(2, 0.05)
    go.set()
    assert batcher.submit(1).result(10) == 2
    assert seen == [[1]]
    batcher.close()


def test_one_bad_request_fails_alone() -> None:
    batcher, _, go = in_batches(4, 0)
    futures: list[Future[int]] = [batcher.submit(1)]
    wait_until_taken(batcher)
    futures += [batcher.submit(each) for each in (2, 13, 3)]
    go.set()
    with pytest.raises(ValueError, match="13"):
        futures.pop(2).result(10)
    assert [future.result(10) for future in futures] == [2, 4, 6]
    batcher.close()


def test_a_full_queue_refuses_and_a_cancelled_request_is_not_handled() -> None:
    batcher, seen, go = in_batches(1, 0, depth=2)
    batcher.submit(0)
    wait_until_taken(batcher)
    given_up, last = batcher.submit(1), batcher.submit(2)
    with pytest.raises(FullError):
        batcher.submit(3)
    assert given_up.cancel()
    go.set()
    batcher.close()  # what waits is answered before
    assert last.result(0) == 4
    assert seen == [[0], [2]]


def entry(number: int, *shown: str) -> Entry:
    return Entry("2026-11-30T00:00:00", "ward-3", f"{number}", "Ist da ein Ödem?", "yes", shown, "run", "adapter")


def read(place: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (place / LOG).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("artifacts/hospitals/north")
    folder.mkdir(parents=True)
    return folder


def test_a_forgotten_case_leaves_the_log_with_the_answers_beside_it(place: Path) -> None:
    append("north", [entry(1, "a", "b"), entry(2, "c")])
    append("north", [entry(3, "b")])
    before = (place / LOG).read_bytes()
    assert erase(place, {"b", "z"}, dry=True) == 2
    assert (place / LOG).read_bytes() == before
    assert erase(place, {"b", "z"}) == 2
    rows = read(place)
    assert [(row["id"], row["shown"], row["answer"], row.get("erased")) for row in rows] == [
        ("1", ["a"], None, 1),
        ("2", ["c"], "yes", 0),
        ("3", [], None, 1),
    ]
    assert erase(place, {"b"}) == 0
    assert [path.name for path in (place / LOG).parent.iterdir()] == ["asked.jsonl"]


def test_a_line_that_a_kill_left_half_written_joins_no_other(place: Path) -> None:
    append("north", [entry(1, "a")])
    with (place / LOG).open("a") as file:
        file.write('{"when": "2026", "shown": ["b')
    append("north", [entry(2, "a", "c")])
    assert len((place / LOG).read_bytes().splitlines()) == 3
    erase(place, {"c"})
    assert [row["id"] for row in read(place)] == ["1", "2"]


def test_the_log_is_on_the_disk_before_the_answer_is_sent(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    append("north", [entry(1, "a")])
    assert sizes == [(place / LOG).stat().st_size]


def keyed(number: int, key: str) -> Entry:
    return replace(entry(number, "a"), key=key, content="c", similarities=(0.5,), confidence=0.75)


def test_answers_are_found_again_by_their_keys_in_the_log_alone(place: Path) -> None:
    first, other = Answered("north"), Answered("north")
    assert first.find(["x"]) == {}
    append("north", [keyed(1, "x"), entry(2, "a")])
    append("north", [replace(keyed(3, "y"), state="begun", answer=None)])
    assert first.find(["x", "y", "z"]) == {"x": keyed(1, "x")}
    with (place / LOG).open("ab") as file:
        file.write(json.dumps(asdict(keyed(4, "z"))).encode()[:-9])  # a process is killed while it writes
    assert first.find(["z"]) == {}
    append("north", [keyed(5, "z")])
    for each in (first, other, Answered("north")):
        assert {key: one.id for key, one in each.find(["x", "z"]).items()} == {"x": "1", "z": "5"}
    erase(place, {"a"})
    assert {one.erased for one in first.find(["x", "z"]).values()} == {1}


def test_an_answer_in_the_place_of_an_error_is_that_requests_own() -> None:
    batcher: Batcher[int, int] = Batcher(
        lambda batch: [ValueError(f"{each}") if each else 7 for each in batch], 4, 0.2, 9
    )
    futures = [batcher.submit(each) for each in (0, 1, 0)]
    with pytest.raises(ValueError, match="1"):
        futures.pop(1).result(10)
    assert [future.result(10) for future in futures] == [7, 7]
    batcher.close()


def case(number: int, image: int) -> Case:
    return Case(f"{number}", f"image-{image}", f"question {number}", "yes", "closed", "train", "t", "en")


@pytest.mark.parametrize("seed", range(3))
def test_an_own_image_is_known_by_its_features(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    pieces = [torch.randn(4 + number % 2, 6, generator=draw) for number in range(8)]
    pieces.append(pieces[3].roll(1, 0))  # the same mean, another image
    starts = [sum(map(len, pieces[:number])) for number in range(9)]
    names = [f"image-{number}" for number in range(9)]
    grids = {name: (1, len(piece), 1) for name, piece in zip(names, pieces, strict=True)}
    features = Features(torch.cat(pieces), dict(zip(names, starts, strict=True)), grids, 1)
    known = KnownImages([case(number, number // 2) for number in range(18)], features)
    for number, piece in enumerate(pieces):
        noise = 5e-4 * piece * torch.randn(piece.shape, generator=draw).clamp(-1, 1)
        found = known.find(piece + noise)
        assert found is not None and found.image_id == names[number] and found.id == f"{2 * number}"
        assert known.find(piece * 1.01) is None
    assert known.find(torch.randn(4, 6, generator=draw)) is None
    assert known.find(torch.randn(4, 5, generator=draw)) is None
    assert KnownImages([], features).find(pieces[0]) is None


def test_drift_is_the_mean_of_what_is_nearest() -> None:
    angles = np.array([0.0, 0.0, 0.3, 1.0])
    images = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    cases = [case(number, image) for number, image in enumerate((0, 0, 1, 2))]
    retriever = SimpleNamespace(
        encoder=SimpleNamespace(parts=lambda rows, texts: (rows, texts)),
        inputs=SimpleNamespace(of=lambda cases: (images[[int(one.id) for one in cases]],) * 2),
    )
    yardstick = Yardstick(retriever, cases)
    assert yardstick.own.image == pytest.approx(np.cos([0.3, 0.3, 0.3, 0.7]))  # the copy is of the same image
    drift = Drift()
    query = np.array([[np.cos(0.5), np.sin(0.5)]], np.float32)
    near = yardstick.measure(query, query)
    assert near.image == pytest.approx(np.cos([0.2]))
    for _ in range(19):
        drift.add([(float(near.image[0]), 0.5)])
    assert np.isnan(drift.asked).all()  # so few could be told apart
    drift.add([(0.0, 0.5)])
    assert drift.asked == (round(19 * math.cos(0.2) / 20, 2), 0.5)
    drift.add([(0.0, 0.0)])
    assert drift.asked == (round(19 * math.cos(0.2) / 20, 2), 0.5)
    assert np.isnan(Yardstick(retriever, cases[:2]).own.means).all()
    assert np.isnan(Yardstick(retriever, []).measure(query, query).image).all()


def refused(*words: str) -> str:
    result = CliRunner().invoke(cli.app, ["serve", "--hospital", "north", *words])
    assert isinstance(result.exception, StudyError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_no_run_and_a_taken_port_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused().startswith("Expected a finished run in artifacts/latest, found no such folder")
    Path("artifacts/latest").mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused("--port", f"{port}").startswith(
            f"Expected a free port for --port, found 127.0.0.1:{port} (Address already in use)"
        )
    assert "found no readable settings.json" in refused("--port", "0")
    assert refused("--port", "0", "--tokens", "none.txt").startswith("Expected --tokens to be a file")


def test_the_promoted_run_is_served_before_the_newest(place: Path) -> None:
    from flows.cli.serve import served_run

    assert served_run() == Path("artifacts/latest")
    Path("artifacts/runs/one").mkdir(parents=True)
    Path("artifacts/current").symlink_to("runs/one", target_is_directory=True)
    assert served_run() == Path("artifacts/current")
