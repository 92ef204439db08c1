"""A finished run in service: batches, promotion, and patients who are forgotten meanwhile."""

import json
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Server, fed_rag
from serving import TOKEN, question, served
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
