"""A bounded cache of what was used last."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Values by name, of which those used last are kept; any thread may use it.

    Args:
        most: bound on the sum of all sizes. A value that is larger by itself is not kept.
        size: the size of a value, as its bytes.
    """

    def __init__(self, most: int, size: Callable[[Value], int]) -> None:
        self._most, self._size = most, size
        self._held: OrderedDict[Hashable, Value] = OrderedDict()
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """The sum of the sizes of what is kept."""
        return self._taken

    def get(self, name: Hashable) -> Value | None:
        """The value of a name, which counts as a use; None if it is not kept."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
            return self._held.get(name)

    def put(self, name: Hashable, value: Value) -> None:
        """Keep a value, in the place of an earlier one of the name; those used longest ago make room."""
        with self._lock:
            if name in self._held:
                self._taken -= self._size(self._held.pop(name))
            self._held[name] = value
            self._taken += self._size(value)
            while self._taken > self._most:
                _, gone = self._held.popitem(last=False)
                self._taken -= self._size(gone)
