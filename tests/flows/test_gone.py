"""Which runs' processes are gone: told by locks that the system lets go of when a process ends."""

import subprocess
import sys
import uuid
from pathlib import Path

from flows import gone

HOLDS = """
import sys, uuid
from pathlib import Path
from flows.gone import _hold
_hold(Path(sys.argv[1]), uuid.UUID(sys.argv[2]))
print("held", flush=True)
input()
"""


def test_a_run_is_gone_once_its_process_is_killed_and_told_once(tmp_path: Path) -> None:
    run = uuid.uuid4()
    command = [sys.executable, "-c", HOLDS, str(tmp_path), str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        mine = [uuid.uuid4() for _ in range(3)]
        assert gone._hold(tmp_path, mine[0]) == []
        process.kill()
        process.wait()
    assert gone._hold(tmp_path, mine[1]) == [run]
    assert gone._hold(tmp_path, mine[2]) == []
    assert {path.name for path in tmp_path.iterdir()} == {"lock", *map(str, mine)}
    for each in mine:
        gone._locks.pop(each).release()


def test_a_run_is_begun_again_though_its_first_process_still_lives(tmp_path: Path) -> None:
    run = uuid.uuid4()
    command = [sys.executable, "-c", HOLDS, str(tmp_path), str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        assert gone._hold(tmp_path, run) == [] and run not in gone._locks
        process.kill()
        process.wait()
    assert gone._hold(tmp_path, run) == []
    gone._locks.pop(run).release()
