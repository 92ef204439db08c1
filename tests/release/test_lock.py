"""The locks: every package at one version with the hashes of its files, within what pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release import lock

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("requirements.lock", "release/torch.lock", "release/torch-cpu.lock", "release/tools.lock")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def requirements(name: str) -> list[list[str]]:
    """Each requirement of a lock with its hashes, as pip reads it: lines that end in a backslash go on."""
    text = (TOP / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [re.split(r"\s+(?=--hash)", line.strip()) for line in lines]


def locked(name: str) -> dict[str, Requirement]:
    """The requirements by the name that all spellings of it share."""
    return {canonicalize_name(each.name): each for each in (Requirement(words[0]) for words in requirements(name))}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_one_version_and_hashes(name: str) -> None:
    found = requirements(name)
    assert len(found) == len(locked(name)) > 0
    for stated, *hashes in found:
        assert [each.operator for each in Requirement(stated).specifier] == ["=="]
        assert hashes and all(HASH.fullmatch(each) for each in hashes), stated
        assert len(set(hashes)) == len(hashes), stated


@pytest.mark.parametrize("name", LOCKS)
def test_no_address_is_in_a_lock(name: str) -> None:
    """Each machine takes packages from where its own pip does; the hashes say that they are the same."""
    text = (TOP / name).read_text(encoding="utf-8")
    assert "://" not in text and "index" not in text and "find-links" not in text and " @ " not in text


@pytest.mark.parametrize("group", ["dependencies", "dev"])
def test_the_lock_is_within_what_the_project_allows(group: str) -> None:
    stated = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    versions = locked("requirements.lock") | locked("release/torch.lock")
    for requirement in map(Requirement, stated):
        (pin,) = versions[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), requirement
        assert pin.version and not versions[canonicalize_name(requirement.name)].marker, requirement


def test_torch_is_kept_apart_with_what_it_needs_of_cuda() -> None:
    """pip prefers a file whose hash its index states, and so would take the CUDA build beside a local CPU build."""
    assert not [name for name in locked("requirements.lock") if name.startswith(lock.OF_TORCH)]
    torch = locked("release/torch.lock")
    assert torch.pop("torch").marker is None and torch and all(name.startswith(lock.OF_TORCH) for name in torch)
    mac = {"sys_platform": "darwin", "platform_machine": "arm64", "python_full_version": "3.11.7"}
    assert all(each.marker and not each.marker.evaluate(mac) for each in torch.values())


def test_the_cpu_build_is_of_the_same_version_and_of_its_own_hash() -> None:
    cpu, torch = locked("release/torch-cpu.lock")["torch"], locked("release/torch.lock")["torch"]
    assert str(cpu.specifier) == f"{torch.specifier}+cpu"
    (found,) = requirements("release/torch-cpu.lock")
    others = next(words for words in requirements("release/torch.lock") if words[0].startswith("torch=="))[1:]
    assert len(found) == 2 and found[1] not in others and len(others) > 10  # of all systems and Pythons
    with pytest.raises(KeyError, match=r"0\.0\.1"):
        lock.cpu_torch("torch==0.0.1 \\\n    --hash=sha256:0")


@pytest.mark.parametrize(
    "platform",
    [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")],
    ids=lambda platform: "-".join(platform),
)
def test_what_the_project_needs_is_there_on_every_platform(platform: tuple[str, str]) -> None:
    """Packages with a marker may be left out somewhere; what the project names itself may not."""
    environment = {"sys_platform": platform[0], "platform_machine": platform[1], "python_full_version": "3.11.7"}
    here = {
        name
        for name, each in (locked("requirements.lock") | locked("release/torch.lock")).items()
        if each.marker is None or each.marker.evaluate(environment)
    }
    assert {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]} <= here
    assert "pywin32" not in here
