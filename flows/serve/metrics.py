"""Measures of the service in Prometheus' text form; they hold counts and times, and nothing that was asked."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Nearness = Callable[[], tuple[tuple[float, float], tuple[float, float]]]
"""Gives the mean similarity of images and of questions: of what was asked, and of the library's own cases."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The measures of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "fed_rag_requests", "Requests by path and status.", ("path", "status"), registry=self._registry
        )
        self.latency = Histogram(
            "fed_rag_request_seconds", "Time to a whole reply.", ("path",), buckets=SECONDS, registry=self._registry
        )
        self.batch = Histogram(
            "fed_rag_batch_size",
            "Questions answered together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.abstentions = Counter("fed_rag_abstentions", "Answers withheld.", registry=self._registry)
        self.reloads = Counter("fed_rag_reloads", "Openings of a run and its library.", registry=self._registry)
        self._queue = Gauge("fed_rag_queue", "Questions that wait.", registry=self._registry)

        self._near = Gauge(
            "fed_rag_nearest_similarity",
            "Mean similarity to the nearest case of the library: of the last requests, and of the library's own cases.",
            ("of", "part"),
            registry=self._registry,
        )

    def watch_drift(self, nearness: Nearness) -> None:
        """Let the measure of drift be what `nearness` gives: of what was asked, and of the library's own cases.

        Each is a mean of images and a mean of questions.
        """
        for row, of in enumerate(("asked", "library")):
            for column, part in enumerate(("image", "question")):
                self._near.labels(of, part).set_function(partial(_mean, nearness, row, column))

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Let the measure of the queue be what `length` gives."""
        self._queue.set_function(length)

    def text(self) -> bytes:
        """All measures, in the text form of Prometheus."""
        return generate_latest(self._registry)


def _mean(nearness: Nearness, row: int, column: int) -> float:
    """One of the four means."""
    return nearness()[row][column]
