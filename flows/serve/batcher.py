"""Dynamic batching: requests that wait at the same time are handled together, by one thread."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")


class FullError(Exception):
    """Too many requests wait already."""


class Batcher(Generic[Asked, Given]):
    """Collects requests for a short time, and handles them together.

    Args:
        handle: answers requests in their order, or gives the error of one; it is only called by the batcher's own
            thread.
        most: most requests in a batch.
        wait_s: how long the first of a batch waits for others.
        depth: how many may wait; more are refused.
    """

    def __init__(
        self, handle: Callable[[list[Asked]], Sequence[Given | Exception]], most: int, wait_s: float, depth: int
    ) -> None:
        self._handle, self._most, self._wait_s = handle, most, wait_s
        self._waiting: queue.Queue[tuple[Asked, Future[Given]] | None] = queue.Queue(depth)
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, asked: Asked) -> "Future[Given]":
        """Queue a request. Raises FullError if `depth` are waiting."""
        future: Future[Given] = Future()
        try:
            self._waiting.put_nowait((asked, future))
        except queue.Full:
            raise FullError from None
        return future

    def waiting(self) -> int:
        """How many requests wait, those in work not counted."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Handle what waits, and end the thread. Nothing may be submitted afterwards."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ended = self._collect(first)
            live = [(asked, future) for asked, future in batch if future.set_running_or_notify_cancel()]
            if live:
                self._answer(live)
            if ended:
                return

    def _collect(self, first: tuple[Asked, "Future[Given]"]) -> tuple[list[tuple[Asked, "Future[Given]"]], bool]:
        """The first request and those that come in time, and whether the batcher was closed meanwhile."""
        batch, end = [first], time.monotonic() + self._wait_s
        while len(batch) < self._most:
            try:
                more = self._waiting.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch.append(more)
        return batch, False

    def _answer(self, live: list[tuple[Asked, "Future[Given]"]]) -> None:
        try:
            given = self._handle([asked for asked, _ in live])
        except Exception as error:
            if len(live) == 1:
                live[0][1].set_exception(error)
                return
            for each in live:  # so that one bad request does not fail the others
                self._answer([each])
            return
        for (_, future), one in zip(live, given, strict=True):
            if isinstance(one, Exception):
                future.set_exception(one)
            else:
                future.set_result(one)
