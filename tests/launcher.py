"""Starts `fed-rag` and `prefect` in processes that have the large libraries imported: most of a short command's time.

Reads one request a line from its standard input (arguments, folder, environment, files for the output), forks, and
answers with the exit code. Each command is a process of its own, in which the project's own modules are imported anew.
"""

import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import flows  # sets what Prefect and the Hugging Face libraries read when they are imported

ENDS_WITHIN_S = 600
LIBRARIES = (
    "faiss",
    "matplotlib.pyplot",
    "pandas",
    "peft",
    "prefect.main",
    "pyarrow.parquet",
    "sacrebleu",
    "scipy.stats",
    "sklearn.metrics",
    "torch",
    "transformers.models.qwen2_vl.modeling_qwen2_vl",
    "typer",
)


def serve() -> None:
    """Return in each command's process, and in this one once nobody can ask any more."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(request)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(request: dict[str, Any]) -> None:
    signal.alarm(ENDS_WITHIN_S)
    for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    importlib.reload(flows)
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    sys.argv = request["command"]
    if Path(sys.argv[0]).name == "prefect":
        from prefect.cli import app as main
    else:
        from flows.cli.main import main
    main()


if __name__ == "__main__":
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")  # as a command does before Prefect is imported
    gc.disable()
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # what is there before the fork is no child's to search, and stays shared memory
    gc.enable()
    serve()
