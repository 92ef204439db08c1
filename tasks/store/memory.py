"""How much memory a process has taken."""

import re
import resource
import sys
from pathlib import Path


def peak_memory() -> int:
    """The largest resident memory of this process since it began its program, in bytes.

    Where there is no /proc, getrusage tells; on Linux that would begin with the memory of the process that started
    this one.
    """
    status = Path("/proc/self/status")
    if status.exists() and (told := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE)):
        return int(told[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
