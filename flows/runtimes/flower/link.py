"""Hospitals asked by name over a Flower grid, each as soon as it is there, and again if it was away meanwhile."""

import logging
import threading
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
        poll: seconds between two looks for an answer.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        about: Mapping[str, Any],
        session: Callable[[int], str] = lambda _: "",
        poll: float = POLL_S,
    ) -> None:
        self._grid, self._nodes, self._about, self._session, self._poll = grid, nodes, about, session, poll
        self._closed = threading.Event()

    def close(self) -> None:
        """End all waiting."""
        self._closed.set()

    def ask(self, hospital: str, request: Parcel) -> Parcel:
        """Send a request and wait for the answer; the hospital may leave and come back meanwhile."""
        if hospital not in self._nodes:
            raise StudyError(f"Expected one of {', '.join(sorted(self._nodes))}, found {hospital}, which has no key.")
        node, request = self._nodes[hospital], replace(request, about={**self._about, **request.about})
        while True:
            self._await(hospital, node)
            answer = self._answer(node, request)
            if answer is not None:
                return unpacked(answer.content)
            logger.info("%s left before it answered: waiting for it to come back", hospital)

    def _await(self, hospital: str, node: int) -> None:
        told = False
        while node not in self._grid.get_node_ids():
            if not told:
                logger.info("waiting for %s to join", hospital)
                told = True
            self._pause()
        if told:
            logger.info("%s has joined", hospital)

    def _answer(self, node: int, parcel: Parcel) -> Message | None:
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
            self._pause()

    def _pause(self) -> None:
        if self._closed.wait(self._poll):
            raise StudyError("The coordinator was told to end while it waited; the same command goes on from here.")
