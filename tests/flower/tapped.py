"""A wire between coordinator and hospitals that keeps all that passes, and a coordinator that keeps what it hears."""

import socket
import sys
import threading
from pathlib import Path

RECORDING = """
import sys, uuid
from pathlib import Path
from flows.runtimes.flower import link

place, plain = Path(sys.argv.pop(1)), link.unpacked
place.mkdir()

def unpacked(records):
    with (place / uuid.uuid4().hex).open("wb") as sink:
        for name, record in records.config_records.items():
            for field, value in record.items():
                sink.write(f"{name}/{field}: ".encode())
                sink.write(value if isinstance(value, bytes) else str(value).encode())
    return plain(records)

link.unpacked = unpacked
from flows.cli.main import main
main()
"""
"""`fed-rag`, that also writes each message of a hospital into a folder, as it is after decryption."""


def recording(place: Path) -> list[str]:
    """The command of a coordinator that records."""
    return [sys.executable, "-c", RECORDING, str(place)]


class Tap:
    """Forwards connections from one port of loopback to another, and writes the bytes of both ways into a folder."""

    def __init__(self, place: Path, listen: int, towards: int) -> None:
        place.mkdir()
        self._place, self._towards, self._count = place, towards, 0
        self._server = socket.create_server(("127.0.0.1", listen))
        self._passing: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._towards))
            except OSError:  # nobody listens yet
                near.close()
                continue
            self._count += 1
            self._passing += near, far
            for way, source, sink in (("up", near, far), ("down", far, near)):
                kept = self._place / f"{self._count}-{way}"
                threading.Thread(target=self._pass_on, args=(source, sink, kept), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, kept: Path) -> None:
        with kept.open("ab", buffering=0) as file:
            try:
                while data := source.recv(65536):
                    file.write(data)
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                source.close()
                sink.close()

    def close(self) -> None:
        for each in (self._server, *self._passing):
            each.close()

    def bytes(self) -> bytes:
        """All that has passed."""
        return b"".join(path.read_bytes() for path in sorted(self._place.iterdir()))
