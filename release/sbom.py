"""Writes what a release consists of, as CycloneDX JSON: each package that fed-rag needs, with licence and hashes.

    .venv-release/bin/python -m release.sbom .venv/bin/python dist

cyclonedx-py reads the environment. It knows no hashes, and lists what tests need too, so both are seen to here.
"""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "release/torch.lock", "release/torch-cpu.lock")
ROOT = "root-component"
"""What cyclonedx-py calls the project."""
LICENCES = {"dp-accounting": "Apache-2.0", "protobuf": "BSD-3-Clause", "transformers": "Apache-2.0"}
"""Of packages whose metadata say it in words of their own, as `3-Clause BSD License`."""
Bom = dict[str, Any]


def plain(name: str) -> str:
    """A package's name in the spelling that all of its spellings share."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_hashes(text: str) -> dict[tuple[str, str], list[str]]:
    """The sha256 of a lock's files, by plain name and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in re.split(r"\n(?=\S)", text):
        if match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", each):
            found[plain(match[1]), match[2]] = re.findall(r"sha256:([0-9a-f]{64})", each)
    return found


def needed(bom: Bom, names: set[str]) -> set[str]:
    """References of the packages with these plain names, and of all that they need in turn."""
    needs = {each["ref"]: each.get("dependsOn", []) for each in bom["dependencies"]}
    waiting = [each["bom-ref"] for each in bom["components"] if plain(each["name"]) in names]
    found = set[str]()
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += needs.get(one, [])
    return found


def finished(bom: Bom, names: set[str], hashes: Mapping[tuple[str, str], list[str]], wheel: Path) -> Bom:
    """A list of an environment as one of a release: without what only tests need, with hashes and the wheel's own.

    Raises SystemExit with a sentence if a package has no licence, or is not as a lock has it.
    """
    kept = needed(bom, names) | {ROOT}
    for each in (components := [each for each in bom["components"] if each["bom-ref"] in kept]):
        if not each.get("licenses"):
            each["licenses"] = [_licence(plain(each["name"]))]
        files = hashes.get((plain(each["name"]), each["version"]))
        if not files:
            sys.exit(f"Expected {each['bom-ref']} in a lock, found it in none: make .venv anew.")
        listed = [{"alg": "SHA-256", "content": content} for content in files]
        reference = {"type": "distribution", "url": each["purl"], "comment": "one of these files", "hashes": listed}
        each["externalReferences"] = [*each.get("externalReferences", []), reference]
    about = bom["metadata"]["component"]
    about["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    dependencies = [
        {"ref": each["ref"], "dependsOn": [one for one in each.get("dependsOn", []) if one in kept]}
        for each in bom["dependencies"]
        if each["ref"] in kept
    ]
    return bom | {"components": components, "dependencies": dependencies}


def _licence(name: str) -> dict[str, Any]:
    if name not in LICENCES:
        sys.exit(f"Expected a licence of {name}, found none in its metadata: write it into release/sbom.py.")
    return {"license": {"id": LICENCES[name], "acknowledgement": "concluded"}}


def main(python: str, folder: str) -> None:
    """Write the list beside the wheel in a folder, once it is valid."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wheel = Path(folder) / f"{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"
    how = ["environment", python, "--pyproject", str(TOP / "pyproject.toml"), "--output-reproducible"]
    read = subprocess.run([sys.executable, "-m", "cyclonedx_py", *how], check=True, stdout=subprocess.PIPE)
    hashes = {key: files for lock in LOCKS for key, files in locked_hashes((TOP / lock).read_text("utf-8")).items()}
    names = {plain(re.split(r"[=<>~! ]", each)[0]) for each in project["dependencies"]}
    text = json.dumps(finished(json.loads(read.stdout), names, hashes, wheel), indent=1) + "\n"
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"Expected valid CycloneDX, found {problem}: see release/sbom.py.")
    place = wheel.with_name(f"{wheel.name.removesuffix('-py3-none-any.whl')}.cdx.json")
    place.write_text(text, encoding="utf-8")
    print(f"{wheel}, {wheel.stat().st_size / 1e6:.1f} MB\n{place}, {len(json.loads(text)['components'])} packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
