"""Peak memory of this process."""

import re
import resource
import sys
from pathlib import Path


def peak_memory() -> int:
    """The peak resident memory of this process since it started its program, in bytes.

    Read from /proc, or from getrusage if there is no /proc. On Linux, getrusage would start from the memory of the
    parent process.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE)):
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
