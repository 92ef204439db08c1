"""A finished run in service: batches, promotion, and patients who are forgotten meanwhile."""

import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import COMMAND, Server, fed_rag, shell
from serving import SIGNED, TOKEN, question, served
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.forget import forget
from flows.serve import service as services
from flows.serve.answerer import Reply, Watching, answer, answer_all
from flows.serve.app import make_app
from flows.serve.asked import Asked, ChangedError, Given
from flows.serve.asked_log import LOG
from flows.serve.desk import Desk, open_desk
from flows.serve.front import Limits
from flows.serve.metrics import Metrics
from flows.serve.place import open_place
from flows.serve.service import Service
from flows.serve.tokens import OneToken
from tasks.cases.withdrawn import FORGOTTEN, name_digest
from tasks.engine import shared
from tasks.errors import StudyError
from tasks.records import Case, Image, read_images, read_table
from tasks.store import discard

pytestmark = pytest.mark.slow
HOSPITAL = "hospital-1"
RUN = Path("artifacts/latest")
PLACE = Path("artifacts/hospitals") / HOSPITAL
SETTINGS = (
    "dataset.images=12",
    "federation.rounds=1",
    "partition.hospitals=2",
    "evaluation.max_new_tokens=4",
    "evaluation.coverage=0.9",
    "evaluation.reliance=0",
    "evaluation.examined=0",
    "evaluation.saliency=0",
)


@pytest.fixture(scope="module")
def finished(server: Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study; tests copy it."""
    folder = tmp_path_factory.mktemp("served")
    words = [word for each in (f"model.name={tiny_folder}", *SETTINGS) for word in ("--set", each)]
    fed_rag(folder, "run", *words, server=server)
    return folder


@pytest.fixture(autouse=True)
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts of a copy, in which the test runs."""
    shutil.copytree(finished / "artifacts", tmp_path / "artifacts", symlinks=True)
    monkeypatch.chdir(tmp_path)
    shared._engine.clear()
    shared._base.clear()
    return tmp_path / "artifacts"


def stored() -> list[Image]:
    (folder,) = (PLACE / "cases").glob("[!.]*")
    return list(read_images(folder / "images.parquet"))


def asked(number: int = 0, text: str = "Is there a mass?") -> Asked:
    """A question about a stored image, with an id of its own."""
    return Asked("ward", replace(stored()[number], id=f"{number}-{text}"), text)


def serving() -> Service:
    return Service(HOSPITAL, lambda: RUN)


def shown(given: Sequence[Given]) -> set[str]:
    return {case.image_id for one in given for _, case in one.reply.retrieved}


def logged() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (PLACE / LOG).read_text(encoding="utf-8").splitlines()]


def test_questions_answered_together_get_the_answers_of_one_at_a_time() -> None:
    texts = ("Is there a mass?", "What is seen?", "In which region is it located, if there is any at all?")
    questions = [(replace(image, id=f"{place}"), texts[place % 3]) for place, image in enumerate(stored()[:7])]
    desk = open_desk(open_place(RUN, HOSPITAL), 10**9)
    together, again = (answer_all(desk, questions) for _ in range(2))
    assert [each.text for each in again] == [each.text for each in together]  # from the caches
    for (image, text), reply in zip(questions, together, strict=True):
        Path("asked.png").write_bytes(image.data)
        alone = answer(RUN, HOSPITAL, Path("asked.png"), text)
        assert (reply.text, reply.threshold) == (alone.text, alone.threshold)
        assert [case for _, case in reply.retrieved] == [case for _, case in alone.retrieved]
        near = [near for near, _ in alone.retrieved]
        assert [near for near, _ in reply.retrieved] == pytest.approx(near, abs=1e-5)
        assert reply.confidence == pytest.approx(alone.confidence, abs=1e-5)
    assert len({reply.text for reply in together}) > 1  # else it proves nothing
    assert len({tuple(case.id for _, case in reply.retrieved) for reply in together}) > 1


def test_a_promoted_run_answers_from_the_next_batch_on(study: Path) -> None:
    old = RUN.resolve()
    new = Path(shutil.copytree(old, study / "runs/another"))
    current = study / "current"
    current.symlink_to(old, target_is_directory=True)
    openings: list[Path] = []
    service = Service(HOSPITAL, lambda: current, opened=lambda: openings.append(current.resolve()))

    def promoting(desk: Desk, questions: Sequence[tuple[Image, str]], watching: Watching) -> list[Reply]:
        current.unlink()
        current.symlink_to(new, target_is_directory=True)
        return answer_all(desk, questions, watching)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(services, "answer_all", promoting)
        (first,) = service.answer([asked()])
    (second,) = service.answer([asked()])
    assert [first.model.run, second.model.run] == [old.name, "another"]
    assert first.reply.text == second.reply.text
    assert openings == [old, new]
    assert [row["run"] for row in logged()] == [old.name, "another"]
    discard(new)
    current.unlink()
    current.symlink_to(study / "runs", target_is_directory=True)
    with pytest.raises(StudyError, match="Expected a finished run in"):
        service.answer([asked()])
    current.unlink()
    current.symlink_to(old, target_is_directory=True)
    assert service.answer([asked()])[0].model.run == old.name


def test_nobody_is_shown_who_is_forgotten_while_an_answer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    service = serving()
    (before,) = service.answer([asked()])
    assert service.explain("ward", asked().picture.id, "rollout").startswith(b"\x89PNG")
    patient = min(shown([before]))
    made: list[set[str]] = []

    def forgetting(desk: Desk, questions: Sequence[tuple[Image, str]], watching: Watching) -> list[Reply]:
        replies = answer_all(desk, questions, watching)
        made.append({case.image_id for reply in replies for _, case in reply.retrieved})
        if len(made) == 1:
            forget(HOSPITAL, patient)
        return replies

    monkeypatch.setattr(services, "answer_all", forgetting)
    given = service.answer([asked()])
    assert patient in made[0]  # the first try would have shown the patient
    assert len(made) == 2
    assert patient not in shown(given)
    cases = {case.id for _, case in before.reply.retrieved if case.image_id == patient}
    (old, new) = logged()
    assert not cases & {*old["shown"], *new["shown"]}
    assert (old["answer"], old["erased"]) == (None, len(cases))
    with pytest.raises(ChangedError):
        Service.explain(service, "somebody else", asked().picture.id, "rollout")


def test_an_earlier_answer_cannot_be_explained_after_a_patient_was_forgotten() -> None:
    service = serving()
    (before,) = service.answer([asked()])
    forget(HOSPITAL, min(shown([before])))
    with pytest.raises(ChangedError):
        service.explain("ward", asked().picture.id, "rollout")


def test_an_interrupted_withdrawal_stops_the_service() -> None:
    service = serving()
    (before,) = service.answer([asked()])
    patient = min(shown([before]))
    row = {"digest": name_digest(patient), "images": [], "on": "2026-11-30", "adapters": []}
    (PLACE / FORGOTTEN).write_text(json.dumps([row]))
    with pytest.raises(StudyError, match="interrupted"):
        service.answer([asked()])
    forget(HOSPITAL, patient)
    assert patient not in shown(service.answer([asked()]))


def test_a_forgotten_patient_is_not_shown_under_load() -> None:
    service, images = serving(), stored()
    service.load()
    replies: list[tuple[float, dict[str, Any]]] = []
    stop = threading.Event()
    limits = Limits(per_minute=100_000)
    with served(make_app(service, OneToken(TOKEN), limits, Metrics())) as client:

        def ask_on(start: int) -> None:
            number = start
            while not stop.is_set():
                reply = client.post("/v1/ask", **question(images[number % len(images)].data))
                assert reply.status_code == 200, reply.text
                replies.append((time.monotonic(), reply.json()))
                number += 1

        threads = [threading.Thread(target=ask_on, args=(start,)) for start in range(4)]
        for each in threads:
            each.start()
        while len(replies) < 20:
            time.sleep(0.01)
        (folder,) = (PLACE / "cases").glob("[!.]*")
        cases = {case.id: case.image_id for case in read_table(folder / "cases.parquet", Case)}
        patient = min(cases[one["id"]] for _, reply in list(replies) for one in reply["retrieved"])
        forget(HOSPITAL, patient)
        ended, count = time.monotonic() + 0.05, len(replies)  # a reply may be on its way to the client
        while len(replies) < count + 20:
            time.sleep(0.01)
        stop.set()
        for each in threads:
            each.join()
    late = [reply for when, reply in replies if when > ended]
    assert len(late) >= 10
    assert patient not in {cases[one["id"]] for reply in late for one in reply["retrieved"]}
    rows = logged()
    assert patient not in {cases[name] for row in rows for name in row["shown"]}
    assert len(rows) == len(replies) == len({row["id"] for row in rows})  # nothing lost, nothing twice
    assert {row["id"] for row in rows} == {reply["id"] for _, reply in replies}


def test_an_unknown_hospital_is_one_sentence() -> None:
    result = CliRunner().invoke(cli.app, ["serve", "--hospital", "nowhere", "--port", "0"])
    assert isinstance(result.exception, StudyError)
    assert str(result.exception).startswith("Expected --hospital to be one of hospital-1, hospital-2, found 'nowhere'")


@contextmanager
def process(port: int, tokens: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`fed-rag serve` in a process of its own, ready."""
    words = ["serve", "--hospital", HOSPITAL, "--port", f"{port}", "--tokens", str(tokens), "--rate", "1000000"]
    with subprocess.Popen([COMMAND, *words], env=shell(), stdout=subprocess.DEVNULL) as made:
        try:
            end = time.monotonic() + 240
            while True:
                with suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60).status_code == 200:
                        break
                assert made.poll() is None and time.monotonic() < end
                time.sleep(0.2)
            yield made
        finally:
            made.kill()


class Clients:
    """Clients that ask on, each question with a key, again and again until it is answered."""

    def __init__(self, port: int, count: int, threads: int) -> None:
        self.replies: dict[int, list[dict[str, Any]]] = {}
        self.repeated = 0
        self._url, self._left, self._images = f"http://127.0.0.1:{port}", iter(range(count)), stored()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(threads)]
        for each in self._threads:
            each.start()

    def wait(self, count: int) -> None:
        """Until so many questions were answered."""
        while len(self.replies) < count:
            assert any(each.is_alive() for each in self._threads)
            time.sleep(0.01)

    def join(self) -> None:
        """Until all were."""
        for each in self._threads:
            each.join()

    def _ask_on(self) -> None:
        with httpx.Client(base_url=self._url, headers=SIGNED, timeout=60) as client:
            while (number := self._next()) is not None:
                for _ in range(2 if number % 10 == 0 else 1):  # some ask again though they got the answer
                    self.replies.setdefault(number, []).append(self._ask(client, number))

    def _next(self) -> int | None:
        with self._lock:
            return next(self._left, None)

    def _ask(self, client: httpx.Client, number: int) -> dict[str, Any]:
        image = self._images[number % len(self._images)].data
        asked = question(image, f"Is there a mass? {number % 7}")
        while True:
            try:
                reply = client.post("/v1/ask", **asked, headers={"Idempotency-Key": f"question {number}"})
            except httpx.TransportError:
                self.repeated += 1
                time.sleep(0.05)
                continue
            assert reply.status_code == 200, reply.text
            return reply.json()


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.proof)])
def test_nothing_accepted_is_lost_or_answered_twice_through_a_reload_and_a_kill(
    count: int, study: Path, tmp_path: Path
) -> None:
    old = RUN.resolve()
    new = Path(shutil.copytree(old, study / "runs/another"))
    (study / "current").symlink_to(old, target_is_directory=True)
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"ward:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with process(port, tokens) as first:
        clients = Clients(port, count, 16)
        clients.wait(count // 3)
        (study / "next").symlink_to(new, target_is_directory=True)
        (study / "next").replace(study / "current")
        clients.wait(2 * count // 3)
        first.kill()
        first.wait()
    with process(port, tokens):
        clients.join()
    assert clients.repeated >= 1  # the kill met questions in work
    assert sorted(clients.replies) == list(range(count))
    lines = [row for row in logged_whole() if row["state"] == "answered"]
    assert len(lines) == len({row["key"] for row in lines}) == len({row["id"] for row in lines}) == count
    by_id = {row["id"]: row for row in lines}
    for replies in clients.replies.values():
        assert all(each == replies[0] for each in replies)
        row = by_id.pop(replies[0]["id"])
        assert (row["answer"], row["shown"]) == (replies[0]["answer"], [each["id"] for each in replies[0]["retrieved"]])
    assert not by_id
    assert {row["run"] for row in lines} == {old.name, "another"}


def logged_whole() -> list[dict[str, Any]]:
    """The log without a line that the kill cut."""
    found = []
    for line in (PLACE / LOG).read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found
