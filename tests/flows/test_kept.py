"""A temporary server stays for the next command, and no longer than it was told to."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows import kept
from tasks.errors import StudyError

LONG_S = 60


@pytest.fixture
def place() -> Iterator[Path]:
    """In a folder with a short name: a socket's path has at most about a hundred characters."""
    folder = Path(tempfile.mkdtemp(prefix="kept"))
    yield folder / "server.sock"
    shutil.rmtree(folder)


class Waiting:
    """A server's wait for commands, in a thread; `parent.close` ends the command that started it."""

    def __init__(self, place: Path, keep: float, port: int = 4321) -> None:
        self._end, start = os.pipe()
        self.parent = os.fdopen(start, "wb")
        self._thread = threading.Thread(target=kept.wait_for_commands, args=(self._end, place, port, keep), daemon=True)
        self._thread.start()

    def is_over(self, within: float) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()

    def close(self) -> None:
        self.parent.close()
        assert self.is_over(LONG_S)
        os.close(self._end)


@pytest.fixture
def begin(place: Path) -> Iterator[Callable[..., Waiting]]:
    """Begin a wait; all are over when the test is."""
    begun: list[Waiting] = []

    def begin(keep: float, port: int = 4321) -> Waiting:
        begun.append(Waiting(place, keep, port))
        if keep:
            until(place.exists)
        return begun[-1]

    yield begin
    for waiting in begun:
        waiting.close()


@pytest.fixture
def join(place: Path) -> Iterator[Callable[[], tuple[socket.socket, int]]]:
    """Join the server; what is still open is closed when the test is over."""
    joined: list[socket.socket] = []

    def join() -> tuple[socket.socket, int]:
        found = kept.join(place)
        assert found is not None
        joined.append(found[0])
        return found

    yield join
    for connection in joined:
        connection.close()


def until(found: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_S
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


Begin = Callable[..., Waiting]
Join = Callable[[], tuple[socket.socket, int]]


def test_without_being_told_to_stay_it_ends_with_its_command(place: Path, begin: Begin) -> None:
    waiting = begin(keep=0)
    assert not waiting.is_over(0.2)
    assert kept.join(place) is None
    waiting.parent.close()
    assert waiting.is_over(LONG_S)


def test_it_stays_while_any_command_runs_and_then_as_long_as_it_was_told(place: Path, begin: Begin, join: Join) -> None:
    waiting = begin(keep=0.3)
    connection, port = join()
    assert port == 4321
    waiting.parent.close()
    assert not waiting.is_over(1), "the second command runs"
    assert kept.is_open(connection)
    connection.close()
    assert waiting.is_over(LONG_S)
    assert not place.exists()
    assert kept.join(place) is None


def test_a_command_that_comes_in_time_keeps_it_on(begin: Begin, join: Join) -> None:
    waiting = begin(keep=2)
    waiting.parent.close()
    for _ in range(3):
        join()[0].close()
    assert not waiting.is_over(0.3)


def test_a_command_notices_that_its_server_is_gone(place: Path) -> None:
    def answer_and_end() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"4321")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        answering = threading.Thread(target=answer_and_end)
        answering.start()
        found = kept.join(place)
        answering.join()
    assert found is not None
    with found[0] as connection:
        until(lambda: not kept.is_open(connection))


def test_only_the_first_of_two_servers_is_found(begin: Begin, join: Join) -> None:
    first, second = begin(keep=1, port=1111), begin(keep=1, port=2222)
    assert join()[1] == 1111
    second.parent.close()
    assert second.is_over(LONG_S), "nobody can find it, so it does not stay"
    assert not first.is_over(0.1)


def test_what_a_killed_server_left_behind_is_removed(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    assert place.exists()
    assert kept.join(place) is None
    assert not place.exists()


def test_a_server_of_another_user_is_not_joined(
    place: Path, begin: Begin, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: place.stat().st_uid + 1)
        assert kept.join(place) is None
    assert join()[1] == 4321


def test_other_settings_or_another_home_have_another_server(tmp_path: Path) -> None:
    places = [
        kept.place_of(tmp_path, "3.9.1 a"),
        kept.place_of(tmp_path, "3.9.1 b"),
        kept.place_of(tmp_path / "x", "a"),
    ]
    assert len(set(places)) == 3
    assert kept.place_of(tmp_path, "3.9.1 a") == places[0]


@pytest.mark.parametrize(
    ("told", "terminal", "seconds"),
    [(None, True, 300), (None, False, 0), ("0", True, 0), ("20", False, 20), ("0.5", True, 0.5)],
)
def test_how_long(told: str | None, terminal: bool, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kept.KEEP, raising=False)
    if told is not None:
        monkeypatch.setenv(kept.KEEP, told)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert kept.kept_for() == seconds


@pytest.mark.parametrize("told", ["long", "-1", "nan", "inf", ""])
def test_a_time_that_is_none_is_refused(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kept.KEEP, told)
    with pytest.raises(StudyError, match=f"^Expected FED_RAG_KEEP_SERVER to be a number of seconds, .* found '{told}'"):
        kept.kept_for()


ASK = "from flows.server import use_prefect_server as use; use(); import os; print(os.environ['PREFECT_API_URL'])"


@pytest.mark.slow
def test_the_next_command_reports_to_the_same_server_until_it_ends(tmp_path: Path, place: Path) -> None:
    unset = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    environment = unset | {"PREFECT_HOME": str(tmp_path), "TMPDIR": str(place.parent), kept.KEEP: "8"}

    def ask() -> str:
        done = subprocess.run(
            [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout.strip()

    def servers() -> list[psutil.Process]:
        """Those of this test: other tests have theirs."""
        return [each for each in psutil.process_iter(["cmdline"]) if str(place.parent) in str(each.info["cmdline"])]

    first = ask()
    assert [process.status() for process in servers()] != []
    assert ask() == first
    other = environment | {"PREFECT_SERVER_DATABASE_TIMEOUT": "77"}
    done = subprocess.run([sys.executable, "-c", ASK], env=other | {kept.KEEP: "0"}, capture_output=True, check=True)
    assert done.stdout.decode().strip() != first, "it was started with other settings"
    until(lambda: not servers())
    assert list(place.parent.glob("*.sock")) == []
