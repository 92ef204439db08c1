"""Asks a public database whether a known weakness is in a locked package: `make advisories`, which needs the internet.

The exit code is 0 where none is known, 1 where one is, and 2 where nothing was checked.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "release/torch.lock", "release/tools.lock")


def command(lock: str) -> list[str]:
    """pip-audit on a lock: it resolves and installs nothing, and sends names and versions to osv.dev alone."""
    how = ["--require-hashes", "--disable-pip", "--vulnerability-service", "osv", "--progress-spinner", "off"]
    return [sys.executable, "-m", "pip_audit", *how, "--format", "json", "--requirement", lock]


def told(document: dict[str, Any]) -> list[str]:
    """A line for each weakness: package, version, name of the advisory, and the versions that mend it."""
    return [
        f"{each['name']} {each['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none yet'}"
        for each in document["dependencies"]
        for found in each.get("vulns", ())
    ]


def main() -> int:
    """Check all locks."""
    lines = []
    for lock in LOCKS:
        done = subprocess.run(command(lock), cwd=TOP, capture_output=True, encoding="utf-8")
        try:
            lines += told(json.loads(done.stdout))
        except ValueError:
            said = "".join(done.stderr.strip().splitlines()[-1:])
            print(
                f"Expected osv.dev to tell of {lock}, found no answer, so nothing was checked: use the internet. {said}"
            )
            return 2
    print("\n".join(lines) or f"No advisory is known for a package of {', '.join(LOCKS)}.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
