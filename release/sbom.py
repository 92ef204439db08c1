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
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "release/torch.lock", "release/torch-cpu.lock")
ROOT = "root-component"
"""What cyclonedx-py calls the project."""
LICENCES = {"dp-accounting": "Apache-2.0", "protobuf": "BSD-3-Clause", "transformers": "Apache-2.0"}
"""Of packages whose metadata say it in words of their own, as `3-Clause BSD License`."""
WHERE = "import sysconfig; print(sysconfig.get_path('purelib'))"
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


def needed(requirements: Iterable[str], requires: Mapping[str, Iterable[str]]) -> set[str]:
    """Plain names of the packages that these requirements ask for here, and of all that they need in turn.

    `requires` has the requirements of each package. Extras count only where they are asked for.
    """
    from packaging.requirements import Requirement

    waiting, found = [(Requirement(each), "") for each in requirements], set[tuple[str, str]]()
    while waiting:
        one, extra = waiting.pop()
        if one.marker and not one.marker.evaluate({"extra": extra}):
            continue
        for asked in {(plain(one.name), each) for each in ("", *one.extras)} - found:
            found.add(asked)
            waiting += [(Requirement(each), asked[1]) for each in requires.get(asked[0], ())]
    return {name for name, _ in found}


def finished(bom: Bom, names: set[str], hashes: Mapping[tuple[str, str], list[str]], wheel: Path) -> Bom:
    """A list of an environment as one of a release: of the packages with these plain names alone, with all hashes.

    Raises SystemExit with a sentence if a package has no licence, or is not as a lock has it.
    """
    components = [each for each in bom["components"] if plain(each["name"]) in names]
    kept = {ROOT, *(each["bom-ref"] for each in components)}
    for each in components:
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
    where = subprocess.run([python, "-c", WHERE], check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.strip()
    names = needed(
        project["dependencies"], {plain(each.name): each.requires or () for each in distributions(path=[where])}
    )
    text = json.dumps(finished(json.loads(read.stdout), names, hashes, wheel), indent=1) + "\n"
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"Expected valid CycloneDX, found {problem}: see release/sbom.py.")
    place = wheel.with_name(f"{wheel.name.removesuffix('-py3-none-any.whl')}.cdx.json")
    place.write_text(text, encoding="utf-8")
    print(f"{wheel}, {wheel.stat().st_size / 1e6:.1f} MB\n{place}, {len(json.loads(text)['components'])} packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
