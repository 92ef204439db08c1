"""Limits how often each token asks, by a token bucket."""

import time
from collections.abc import Callable


class RateLimit:
    """At most `per_minute` requests in a minute for each name, of which as many may come at once.

    Each name has a bucket that holds `per_minute` requests and is refilled steadily.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait_s(self, name: str) -> float:
        """Count a request; 0 if it is within the limit, else the seconds until the next one is."""
        now = self._clock()
        left, then = self._left.get(name, (float(self._most), now))
        left = min(float(self._most), left + (now - then) * self._most / 60)
        allowed = left >= 1
        self._left[name] = (left - 1 if allowed else left, now)
        return 0.0 if allowed else (1 - left) * 60 / self._most
