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
        for each in list(self._connections):
            _end(each)

    def open(self) -> None:
        """Let connections pass again."""
        self._open = True

    def close(self) -> None:
        """For good."""
        self.shut()
        _end(self._listener)  # wakes who waits for a connection
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                inside, _ = self._listener.accept()
                threading.Thread(target=self._let_in, args=(inside,), daemon=True).start()

    def _let_in(self, inside: socket.socket) -> None:
        """Serve one connection to its end; without a server behind the door it ends at once."""
        with inside, contextlib.suppress(OSError):
            if self._open:
                with socket.create_connection(("127.0.0.1", self._to)) as outside:
                    self._connections += [inside, outside]
                    back = threading.Thread(target=_pass, args=(outside, inside), daemon=True)
                    back.start()
                    _pass(inside, outside)
                    back.join()


def _pass(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(2**16):
            other.sendall(data)
    _end(one), _end(other)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def door_to(port: int) -> Iterator[Door]:
    """An open door to a port, closed on exit."""
    door = Door(port)
    try:
        yield door
    finally:
        door.close()
