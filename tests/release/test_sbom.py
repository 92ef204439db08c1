"""The list of what a release consists of: complete, without what tests need, each package with licence and hashes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_lock import PROJECT, TOP, locked

from release import sbom

TOOLS = TOP / ".venv-release/bin/python"
LOCK = """\
# a comment
one==1.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
Two_Parts==2 ; sys_platform == 'linux' \\
    --hash=sha256:{c}
tests==3 \\
    --hash=sha256:{c}
""".format(a="a" * 64, b="b" * 64, c="c" * 64)


def package(name: str, version: str, **more: Any) -> dict[str, Any]:
    licences = [{"license": {"id": "MIT"}}]
    named = {"bom-ref": f"{name}=={version}", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
    return named | {"licenses": licences} | more


def read(*components: dict[str, Any]) -> sbom.Bom:
    """As cyclonedx-py reads an environment in which `one` needs `Two.Parts`, and tests need `tests`."""
    needs = {sbom.ROOT: ["one==1.0", "tests==3"], "one==1.0": ["Two.Parts==2"], "Two.Parts==2": [], "tests==3": []}
    return {
        "metadata": {"component": {"bom-ref": sbom.ROOT, "name": "fed-rag"}},
        "components": list(components),
        "dependencies": [{"ref": ref, "dependsOn": them} for ref, them in needs.items()],
    }


def test_a_release_lists_what_it_needs_with_the_hashes_of_the_lock(tmp_path: Path) -> None:
    (wheel := tmp_path / "one.whl").write_bytes(b"wheel")
    hashes = sbom.locked_hashes(LOCK)
    assert hashes == {("one", "1.0"): ["a" * 64, "b" * 64], ("two-parts", "2"): ["c" * 64], ("tests", "3"): ["c" * 64]}
    bom = read(package("one", "1.0"), package("Two.Parts", "2", externalReferences=[]), package("tests", "3"))
    made = sbom.finished(bom, {"one", "two-parts"}, hashes, wheel)
    one, two = made["components"]
    assert [each["content"] for each in one["externalReferences"][0]["hashes"]] == ["a" * 64, "b" * 64]
    assert [each["content"] for each in two["externalReferences"][0]["hashes"]] == ["c" * 64]
    assert made["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(b"wheel").hexdigest()
    assert {each["ref"]: each["dependsOn"] for each in made["dependencies"]} == {
        sbom.ROOT: ["one==1.0"],
        "one==1.0": ["Two.Parts==2"],
        "Two.Parts==2": [],
    }


def test_extras_count_only_where_they_are_asked_for() -> None:
    requires = {
        "one": ["Two.Parts[fast]>=1", "tests; extra == 'dev'", "windows; sys_platform == 'win32'"],
        "two-parts": ["three; extra == 'fast'", "four; extra == 'slow'", "one"],
    }
    assert sbom.needed(["one>=1"], requires) == {"one", "two-parts", "three"}


def test_a_package_without_licence_or_lock_ends_the_release(tmp_path: Path) -> None:
    (wheel := tmp_path / "one.whl").write_bytes(b"wheel")
    bare = package("one", "1.0", licenses=[])
    with pytest.raises(SystemExit, match="a licence of one"):
        sbom.finished(read(bare), {"one"}, sbom.locked_hashes(LOCK), wheel)
    with pytest.raises(SystemExit, match=r"one==1\.1 in a lock"):
        sbom.finished(read(package("one", "1.1")), {"one"}, sbom.locked_hashes(LOCK), wheel)
    known = package("transformers", "1", licenses=[])
    made = sbom.finished(read(known), {"transformers"}, {("transformers", "1"): ["d" * 64]}, wheel)
    assert made["components"][0]["licenses"][0]["license"]["id"] == "Apache-2.0"


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.skipif(not TOOLS.exists(), reason="cyclonedx-py is not there: make .venv-release/installed")
def test_the_list_of_this_environment_is_valid_and_complete(tmp_path: Path) -> None:
    """`make dist`, but for the wheel, whose bytes alone are looked at."""
    (wheel := tmp_path / f"fed_rag-{PROJECT['version']}-py3-none-any.whl").write_bytes(b"wheel")
    command = [str(TOOLS), "-m", "release.sbom", sys.executable, str(tmp_path)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / f"fed_rag-{PROJECT['version']}.cdx.json").read_text(encoding="utf-8"))
    assert (made["bomFormat"], made["metadata"]["component"]["version"]) == ("CycloneDX", PROJECT["version"])
    assert made["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    listed = {canonicalize_name(each["name"]): each for each in made["components"]}
    assert {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]} <= set(listed)
    assert not {"pytest", "mypy", "ruff", "hatchling"} & set(listed)
    torch = listed.pop("torch")
    assert torch["version"].split("+")[0] == str(locked("release/torch.lock")["torch"].specifier).removeprefix("==")
    for name, each in listed.items():
        pin = (locked("requirements.lock") | locked("release/torch.lock"))[name].specifier
        assert each["licenses"] and f"=={each['version']}" == str(pin)
        assert any(reference.get("hashes") for reference in each["externalReferences"])
