"""A way to a server that can be shut: what a client sees whose network is down."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Door:
    """Passes connections on to a port of this machine, as long as it is open."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = True
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def shut(self) -> None:
        """End all connections, and take no other."""
        self._open = False
        for each in self._connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def open(self) -> None:
        """Let connections pass again."""
        self._open = True

    def close(self) -> None:
        """For good."""
        self.shut()
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                inside, _ = self._listener.accept()
                if not self._open:
                    inside.close()
                    continue
                outside = socket.create_connection(("127.0.0.1", self._to))
                self._connections += [inside, outside]
                for one, other in ((inside, outside), (outside, inside)):
                    threading.Thread(target=_pass, args=(one, other), daemon=True).start()


def _pass(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(2**16):
            other.sendall(data)
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def door_to(port: int) -> Iterator[Door]:
    """An open door to a port, closed on exit."""
    door = Door(port)
    try:
        yield door
    finally:
        door.close()
