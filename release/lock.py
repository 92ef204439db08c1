"""Writes the locks anew: every package at one version, with the hashes of its files for all platforms.

`python -m release.lock` keeps each version that a lock states as long as pyproject.toml allows it, and
`python -m release.lock --upgrade` takes the newest. uv reads metadata alone, so nothing large is downloaded.
"""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
LOCK, CUDA, TOOLS = (TOP / name for name in ("requirements.lock", "requirements-cuda.lock", "release/tools.lock"))
CUDA_PARTS = ("cuda-", "nvidia-", "triton")
"""How the names begin of what torch's CUDA builds need, gigabytes that its CPU builds do without."""
CPU_TORCH = {"2.13.0": "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"}
"""The hash of `torch-VERSION+cpu-cp311-cp311-manylinux_2_28_x86_64.whl` (`pip hash FILE`). PyTorch publishes CPU builds
apart from the package index that uv reads; pip takes one for `torch==VERSION` where it knows a place that has it."""
Lines = dict[str, str]
"""The lines of each requirement, by the package's name as the index writes it."""


def compiled(source: str, lock: Path, options: list[str]) -> Lines:
    """The requirements of a source of uv's, resolved for all platforms from Python 3.11 on."""
    keep = [] if "--upgrade" in options else ["--constraints", str(lock)]
    how = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
    extra = ["--extra", "dev"] if source.endswith(".toml") else []
    command = [sys.executable, "-m", "uv", "pip", "compile", source, *extra, *how, *keep]
    text = subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    return {each.split("==")[0]: each for each in re.split(r"\n(?=\S)", text.strip())}


def with_cpu_torch(lines: str) -> str:
    """Torch's lines with the hash of its CPU build.

    Raises KeyError for a version whose hash is not in `CPU_TORCH`: download that build, and write its hash there.
    """
    version = lines.split()[0].removeprefix("torch==")
    return f"{lines} \\\n    --hash={CPU_TORCH[version]}"


def write(path: Path, comment: str, lines: Lines) -> None:
    """Write a lock, its packages in the order of the alphabet."""
    path.write_text("\n".join([f"# {comment}", *(lines[name] for name in sorted(lines))]) + "\n", encoding="utf-8")


def main() -> None:
    """Write all locks."""
    options = sys.argv[1:]
    found = compiled("pyproject.toml", LOCK, options)
    found["torch"] = with_cpu_torch(found["torch"])
    cuda = {name: found.pop(name) for name in list(found) if name.startswith(CUDA_PARTS)}
    tools = compiled("release/tools.in", TOOLS, options)
    write(LOCK, "Every package with the hashes of its files; written by `make lock` (docs/contributing.md).", found)
    write(CUDA, "What torch needs beside requirements.lock where pip took a CUDA build of it; `make lock`.", cuda)
    write(TOOLS, "What `make sbom` and `make advisories` run, in an environment of its own; `make lock`.", tools)


if __name__ == "__main__":
    main()
