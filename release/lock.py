"""Writes the locks anew: every package at one version, with the hashes of its files for all platforms.

`python -m release.lock` keeps each version that a lock states as long as pyproject.toml allows it, and
`python -m release.lock --upgrade` takes the newest. uv reads metadata alone, so nothing large is downloaded.
"""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
LOCK, TORCH, CPU_TORCH, TOOLS = (
    TOP / name for name in ("requirements.lock", "release/torch.lock", "release/torch-cpu.lock", "release/tools.lock")
)
OF_TORCH = ("cuda-", "nvidia-", "torch", "triton")
"""How the names begin of torch, and of what its CUDA builds need: gigabytes that its CPU builds do without."""
CPU_BUILDS = {"2.13.0": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"}
"""The sha256 of `torch-VERSION+cpu-cp311-cp311-manylinux_2_28_x86_64.whl` (`pip hash FILE`). PyTorch publishes CPU
builds apart from the package index that uv reads."""
Lines = dict[str, str]
"""The lines of each requirement, by the package's name as the index writes it."""


def compiled(source: str, options: list[str], *locks: Path) -> Lines:
    """The requirements of a source of uv's, resolved for all platforms from Python 3.11 on."""
    keep = [] if "--upgrade" in options else [word for lock in locks for word in ("--constraints", str(lock))]
    how = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
    extra = ["--extra", "dev"] if source.endswith(".toml") else []
    command = [sys.executable, "-m", "uv", "pip", "compile", source, *extra, *how, *keep]
    text = subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    return {each.split("==")[0]: each for each in re.split(r"\n(?=\S)", text.strip())}


def cpu_torch(lines: str) -> str:
    """The requirement of torch's CPU build, of the version in the lines of torch.

    Raises KeyError for a version whose hash is not in `CPU_BUILDS`: find that build, and write its hash there.
    """
    version = lines.split()[0].removeprefix("torch==")
    return f"torch=={version}+cpu \\\n    --hash=sha256:{CPU_BUILDS[version]}"


def write(path: Path, comment: str, lines: Lines) -> None:
    """Write a lock, its packages in the order of the alphabet."""
    path.write_text("\n".join([f"# {comment}", *(lines[name] for name in sorted(lines))]) + "\n", encoding="utf-8")


def main() -> None:
    """Write all locks."""
    options = sys.argv[1:]
    found = compiled("pyproject.toml", options, LOCK, TORCH)
    torch = {name: found.pop(name) for name in list(found) if name.startswith(OF_TORCH)}
    cpu = {"torch": cpu_torch(torch["torch"])}
    tools = compiled("release/tools.in", options, TOOLS)
    by = "written by `make lock` (docs/contributing.md)"
    write(LOCK, f"Every package but torch, with the hashes of its files; {by}.", found)
    write(CPU_TORCH, f"Torch without CUDA, where pip is told of a place that has it; {by}.", cpu)
    write(TORCH, f"Torch as it is published, with what it needs of CUDA; {by}.", torch)
    write(TOOLS, f"What looks at a release, in an environment of its own; {by}.", tools)


if __name__ == "__main__":
    main()
