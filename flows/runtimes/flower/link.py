"""Hospitals asked by name over a Flower grid, each as soon as it is there, and again if it was away meanwhile."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from flows.runtimes.flower.wire import request, unpacked
from tasks.errors import StudyError
from tasks.federate.remote.parcel import Parcel

logger = logging.getLogger("fed_rag")
POLL_S = 0.5


class GridLink:
    """The link over a grid, for several threads at once.

    Args:
        grid: of the run.
        nodes: the number of each hospital's node, by name.
        about: what every request tells beside its own: the study and its base.
        session: tells a node's connections apart; a request of an earlier one is sent again.
        within: seconds that a request may take; meeting may take any time, since people start the hospitals.
        poll: seconds between two looks for an answer.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        about: Mapping[str, Any],
        session: Callable[[int], str] = lambda _: "",
        within: float | None = None,
        poll: float = POLL_S,
    ) -> None:
        self._grid, self._nodes, self._about, self._session, self._poll = grid, nodes, about, session, poll
        self._within = within
        self._closed = threading.Event()

    def close(self) -> None:
        """End all waiting."""
        self._closed.set()

    def ask(self, hospital: str, request: Parcel) -> Parcel:
        """Send a request and wait for the answer; the hospital may leave and come back meanwhile.

        In the midst of a secure sum it may not: what it has begun is lost with it.
        """
        if hospital not in self._nodes:
            raise StudyError(f"Expected one of {', '.join(sorted(self._nodes))}, found {hospital}, which has no key.")
        node, told = self._nodes[hospital], replace(request, about={**self._about, **request.about})
        limit = None if request.kind == "meet" else self._within
        patience = Patience(hospital, limit, self._poll, self._closed)
        while request.kind != "sum" or node in self._grid.get_node_ids():
            self._await(hospital, node, patience)
            answer = self._answer(node, told, patience)
            if answer is not None:
                return unpacked(answer.content)
            if request.kind == "sum":
                break
            logger.info("%s left before it answered: waiting for it to come back", hospital)
        raise StudyError(f"{hospital} left in the midst of the secure sum, which goes on without it.")

    def _await(self, hospital: str, node: int, patience: "Patience") -> None:
        told = False
        while node not in self._grid.get_node_ids():
            if not told:
                logger.info("waiting for %s to join", hospital)
                told = True
            patience.pause()
        if told:
            logger.info("%s has joined", hospital)

    def _answer(self, node: int, parcel: Parcel, patience: "Patience") -> Message | None:
        """The answer to a request; None if the node left before it gave one."""
        session = self._session(node)
        try:
            (sent,) = self._grid.push_messages([request(node, parcel)])
        except StudyError:  # it left a moment ago
            return None
        while True:
            for message in self._grid.pull_messages([sent]):
                return None if message.has_error() else message
            if self._session(node) != session:
                return None
            patience.pause()


class Patience:
    """How long one request waits for a hospital: until its time is over, or the link is closed."""

    def __init__(self, hospital: str, seconds: float | None, poll: float, closed: threading.Event) -> None:
        self._hospital, self._seconds, self._poll, self._closed = hospital, seconds, poll, closed
        self._began = time.monotonic()

    def pause(self) -> None:
        """Wait a moment. Raises StudyError if there is no more to wait for."""
        if self._closed.wait(self._poll):
            raise StudyError("The coordinator was told to end while it waited; the same command goes on from here.")
        if self._seconds is not None and time.monotonic() - self._began > self._seconds:
            raise StudyError(
                f"Expected an answer of {self._hospital} within {self._seconds:g} s (federation.round_timeout_s), "
                "found none: it is left out."
            )
