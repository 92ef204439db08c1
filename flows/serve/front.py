"""What the routes share: the service behind its queue, for whole answers and for streams."""

import asyncio
import hashlib
import secrets
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from flows.serve.asked import Asked, Given, KeyTakenError
from flows.serve.batcher import Batcher
from flows.serve.errors import QUEUE
from flows.serve.metrics import Metrics
from flows.serve.service import Service
from flows.serve.stream import Stream
from flows.serve.user_question import read_sent, refuse_empty
from tasks.errors import StudyError

LONGEST_KEY = 200
"""Most characters of an Idempotency-Key."""


@dataclass(frozen=True)
class Limits:
    """What a service bears."""

    batch: int = 32
    """Most questions answered together."""
    wait_ms: float = 20
    """How long the first question of a batch waits for others."""
    per_minute: int = 120
    """Requests of one token."""
    most_bytes: int = 32_000_000
    """Of one request."""


@dataclass(frozen=True)
class Sent:
    """What a client sent."""

    image: bytes
    question: str
    pictures: bool = False
    """Whether the images of the retrieved cases are wanted too."""
    key: str | None = None
    """The header Idempotency-Key."""


@dataclass(frozen=True)
class Waiting:
    """A question in the queue or in work."""

    asked: Asked
    future: "asyncio.Future[Given]"
    stream: Stream | None = field(default=None)

    def give_up(self) -> None:
        """Nobody waits any more: no more of the answer is computed. A question with a key is answered to its end."""
        if self.asked.given_up is not None:
            self.asked.given_up.set()
            self.future.cancel()

    async def pieces(self) -> AsyncIterator[str | Given]:
        """The answer's text piece by piece as it is generated, then the answer. A withheld answer has no pieces."""
        stream = self.stream
        assert stream is not None
        self.future.add_done_callback(lambda _: stream.end())
        try:
            async for piece in stream.words():
                yield piece
            given = await self.future
            whole = "" if given.abstained else given.reply.text
            if rest := whole.removeprefix(stream.told):
                yield rest
            yield given
        finally:
            if not self.future.done():
                self.give_up()


class Front:
    """The service behind its queue."""

    def __init__(self, service: Service, limits: Limits, metrics: Metrics) -> None:
        self.service, self._metrics = service, metrics
        self._batcher: Batcher[Asked, Given] = Batcher(self._answer, limits.batch, limits.wait_ms / 1000, QUEUE)
        self._keyed: dict[str, Waiting] = {}
        metrics.watch_queue(self._batcher.waiting)
        metrics.watch_drift(service.nearness)

    async def ask(self, request: Request, sent: Sent) -> Given:
        """The answer to a question. Raises HTTPException 400 if image or question is unusable, 499 if the client left.

        Raises KeyTakenError if the key belongs to another question, and what the service raises.
        """
        waiting = self._queue(await self._read(request.state.who, sent))
        leaving = asyncio.create_task(_left(request))
        try:
            both: set[asyncio.Future[Any]] = {waiting.future, leaving}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.future.done():
                waiting.give_up()
                raise HTTPException(499, "Expected a client that waits, found none.")
            return waiting.future.result()
        finally:
            leaving.cancel()

    async def stream(self, request: Request, sent: Sent) -> Waiting:
        """As `ask`, for the pieces of the answer; nothing is computed for a client that left."""
        asked, stream = await self._read(request.state.who, sent), Stream()
        waiting = self._queue(replace(asked, stream=stream))
        return replace(waiting, stream=stream)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """At the end, answer what waits."""
        yield
        await run_in_threadpool(self._batcher.close)

    async def _read(self, who: str, sent: Sent) -> Asked:
        if sent.key is not None and not 0 < len(sent.key) <= LONGEST_KEY:
            raise HTTPException(
                400, f"Expected an Idempotency-Key of 1 to {LONGEST_KEY} characters, found {len(sent.key)}: shorten it."
            )
        try:
            refuse_empty(sent.question)
            picture = await run_in_threadpool(read_sent, sent.image, secrets.token_hex(8))
        except StudyError as error:
            raise HTTPException(400, str(error)) from None
        asked = Asked(who, picture, sent.question, sent.pictures)
        if sent.key is None:
            return replace(asked, given_up=threading.Event())
        secret = hashlib.sha256(f"{who}\0{sent.key}".encode())
        content = hashlib.blake2b(picture.data, key=secret.digest(), digest_size=32)
        content.update(f"\0{sent.question}".encode())
        return replace(asked, key=hashlib.sha256(secret.digest()).hexdigest(), content=content.hexdigest())

    def _queue(self, asked: Asked) -> Waiting:
        """Queue a question, unless one with the same key is in the queue or in work: then both get its answer."""
        if asked.key is None:
            return self._submit(asked)
        before = self._keyed.get(asked.key)
        if before is not None and before.asked.content != asked.content:
            raise KeyTakenError
        if before is None:
            before = self._keyed[asked.key] = self._submit(asked)
            before.future.add_done_callback(lambda _: self._keyed.pop(str(asked.key)))
        return Waiting(asked, asyncio.shield(before.future))

    def _submit(self, asked: Asked) -> Waiting:
        future = asyncio.wrap_future(self._batcher.submit(asked))
        future.add_done_callback(self._count)
        return Waiting(asked, future)

    def _count(self, future: "asyncio.Future[Given]") -> None:
        if not future.cancelled() and future.exception() is None:
            self._metrics.abstentions.inc(future.result().abstained)

    def _answer(self, asked: Sequence[Asked]) -> list[Given | Exception]:
        self._metrics.batch.observe(len(asked))
        return self.service.answer(asked)


async def _left(request: Request) -> None:
    """Return when the client goes away; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
