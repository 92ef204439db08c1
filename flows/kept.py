"""A temporary Prefect server that stays a while for the next command of the same user.

Starting a server takes most of a short command's time. Who works at a terminal runs one command after another, so the
server stays KEPT_FOR_S after the last of them has ended. Commands find it by a socket in the system's folder for
temporary files, and each holds a connection as long as it runs. Where no terminal is, as in a script or a schedule,
nothing is left running unless FED_RAG_KEEP_SERVER says so.
"""

import contextlib
import hashlib
import math
import os
import selectors
import socket
import sys
import tempfile
from pathlib import Path

from tasks.errors import StudyError

KEEP = "FED_RAG_KEEP_SERVER"
"""Seconds that a server stays for the next command; 0 ends it with its own."""
KEPT_FOR_S = 300
TELLS_WITHIN_S = 5


def kept_for() -> float:
    """Seconds that a server started now stays after its last command; StudyError if what was set is no such number."""
    told = os.environ.get(KEEP)
    if told is None:
        return KEPT_FOR_S if sys.stderr.isatty() else 0.0
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(told)) < math.inf:
            return seconds
    raise StudyError(f"Expected {KEEP} to be a number of seconds, 0 or more, found {told!r}: mend or unset it.")


def place_of(home: Path, settings: str) -> Path:
    """The socket by which this user's commands find a server with the same Prefect, database and settings."""
    told = "\0".join((str(home.absolute()), settings, sys.prefix))
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"fed-rag-{user}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.sock"


def join(place: Path) -> tuple[socket.socket, int] | None:
    """A connection to a kept server, which stays at least until it is closed, and its port; None where none is."""
    if not _is_own(place):  # another user's server would see the runs
        return None
    connection = _new_socket()
    if connection is None:
        return None
    connection.settimeout(TELLS_WITHIN_S)
    try:
        connection.connect(str(place))
        port = int(connection.recv(16))
        connection.setblocking(False)
        return connection, port
    except ConnectionRefusedError:  # its server was killed
        place.unlink(missing_ok=True)
    except (OSError, ValueError):  # it ends just now
        pass
    connection.close()
    return None


def listen(place: Path) -> socket.socket | None:
    """A socket for commands to come; None where another server has it, or the system has no such sockets."""
    found = _new_socket()
    if found is None:
        return None
    try:
        found.bind(str(place))
        place.chmod(0o600)
        found.listen()
    except OSError:
        found.close()
        return None
    return found


def _new_socket() -> socket.socket | None:
    """None where the system has no sockets that are files."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) if hasattr(socket, "AF_UNIX") else None


def _is_own(place: Path) -> bool:
    """Whether there is a file of this user."""
    try:
        return place.lstat().st_uid == os.getuid()
    except OSError:
        return False


def is_open(connection: socket.socket) -> bool:
    """Whether the server at the other end still runs."""
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def wait_for_commands(parent: int, place: Path, port: int, keep: float) -> None:
    """Return once the command that started this server, and all that joined it, are gone for so many seconds.

    Args:
        parent: file descriptor that closes when that command ends, however it ends.
        place: where others may join.
        port: what these are told.
        keep: seconds; with 0, none may join.
    """
    door = _listen(place) if keep else None
    with selectors.DefaultSelector() as watched:
        watched.register(parent, selectors.EVENT_READ)
        if door:
            watched.register(door, selectors.EVENT_READ)
        running = 1
        while running or door:
            found = watched.select(None if running else keep)
            if not found:
                break
            for key, _ in found:
                running += _let_in(watched, door, port) if door and key.fileobj is door else _let_go(watched, key)
    if door:
        place.unlink(missing_ok=True)
        door.close()


def _listen(place: Path) -> socket.socket | None:
    """A socket for commands to come; None where another server has it, or the system has no such sockets."""
    try:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except (OSError, AttributeError):
        return None
    try:
        found.bind(str(place))
        place.chmod(0o600)
        found.listen()
    except OSError:
        found.close()
        return None
    return found


def _let_in(watched: selectors.BaseSelector, door: socket.socket, port: int) -> int:
    """By how much the number of commands grows."""
    try:
        connection, _ = door.accept()
        connection.sendall(str(port).encode())
    except OSError:  # it is gone again
        return 0
    watched.register(connection, selectors.EVENT_READ)
    return 1


def _let_go(watched: selectors.BaseSelector, key: selectors.SelectorKey) -> int:
    """As `_let_in`. Commands send nothing: what can be read is an end."""
    watched.unregister(key.fileobj)
    if isinstance(key.fileobj, socket.socket):
        key.fileobj.close()
    return -1
