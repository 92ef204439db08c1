"""A service on loopback in a thread of the test, as clients see it."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from ingest_samples import picture

from flows.serve.answerer import Reply
from flows.serve.asked import Asked, ChangedError, Given, Model
from tasks.records import Case, Image

TOKEN = "a token"
SIGNED = {"Authorization": f"Bearer {TOKEN}"}


CASE = Case("t:1", "image-1", "Is there a cyst?", "no", "closed", "train", "table", "en")


class Parrot:
    """Answers with the question, and withholds what it is asked in capitals."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.working: list[Asked] = []
        self.broken: Exception | None = None
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.after_word = threading.Event()
        self.after_word.set()

    def answer(self, asked: Sequence[Asked]) -> list[Given | Exception]:
        self.entered.set()
        self.go.wait(10)
        if self.broken:
            raise self.broken
        self.asked += asked
        self.working = list(asked)
        for each in asked:
            if each.stream and not each.question.isupper():
                for place in range(1, len(each.question.split()) + 1):
                    each.stream.tell(" ".join(each.question.split()[:place]))
                    self.after_word.wait(10)
        return [
            Given(
                Reply(each.question, 0.4 if each.question.isupper() else 0.9, 0.5, ((0.75, CASE),)),
                Model("run-1", "abc"),
                {"image-1": Image("image-1", picture(), 8, 8)} if each.pictures else {},
                each.picture.id,
            )
            for each in asked
        ]

    def nearness(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (0.25, 0.5), (0.75, 1.0)

    def model(self) -> Model:
        if self.broken:
            raise self.broken
        return Model("run-1", "abc")

    def explain(self, who: str, answer: str, method: str) -> bytes:
        if answer not in {each.picture.id for each in self.asked if each.who == who}:
            raise ChangedError
        return method.encode()


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the application, which ends on exit."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{door.getsockname()[1]}"
            with httpx.Client(
                base_url=url, headers=SIGNED, timeout=60, transport=httpx.HTTPTransport(retries=5)
            ) as one:
                one.get("/health").raise_for_status()
                yield one
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


def question(image: bytes, text: str = "Is there a mass?", **more: str) -> dict[str, Any]:
    """The arguments of a client's `post` to `/v1/ask`."""
    return {"files": {"image": ("image.png", image)}, "data": {"question": text, **more}}
