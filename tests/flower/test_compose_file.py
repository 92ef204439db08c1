"""compose.yaml: commands that fed-rag knows, folders that no two services share, no way out."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import TOP
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.settings_file import load_hospital

FILE: dict[str, Any] = yaml.safe_load((TOP / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = FILE["services"]


def commands() -> list[list[str]]:
    """The commands of docs/deployment.md that make keys and settings, for each name of its loop."""
    text = (TOP / "docs/deployment.md").read_text(encoding="utf-8")
    block = text.partition("## On one machine, in containers")[2].partition("```sh\n")[2].partition("```")[0]
    lines = [line.strip() for line in block.splitlines() if line.strip().startswith("fed-rag ")]
    return [line.replace("$name", name).split()[1:] for line in lines for name in _names(line)]


def _names(line: str) -> list[str]:
    return ["north", "south"] if "$name" in line else [""]


def test_keys_and_settings_are_made_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands():
        found = CliRunner().invoke(app, words, catch_exceptions=False)
        assert found.exit_code == 0, found.output
    for name, service in SERVICES.items():
        folder = _own_folder(service)
        assert (tmp_path / folder).is_dir(), f"{name} has no folder {folder}"
    for name in ("north", "south"):
        settings = load_hospital(tmp_path / f"federation/{name}/hospital.yaml")
        assert settings.coordinator.address == "coordinator:9092"
        assert str(settings.dataset.root) == "/data"
        handed = {path.name for path in (tmp_path / f"federation/coordinator/keys/hospitals/{name}").iterdir()}
        assert {Path(settings.coordinator.key).name, Path(settings.coordinator.authority).name} <= handed


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_runs_a_command_that_there_is(name: str) -> None:
    command = SERVICES[name]["command"]
    words = [word for word in command if re.fullmatch(r"[a-z]+", word)][:2]
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    options = [word for word in command if word.startswith("--")]
    assert all(option in shown.output for option in options)


def test_no_service_sees_another_ones_folder_and_none_is_reached_from_outside() -> None:
    folders = [_own_folder(service) for service in SERVICES.values()]
    assert len(folders) == len(set(folders)) == 3
    for service in SERVICES.values():
        assert "ports" not in service and service["read_only"]
        assert service["networks"] == ["federation"]
        assert all(volume.endswith(":ro") for volume in service["volumes"][1:])
    assert FILE["networks"] == {"federation": {"internal": True}}


def test_the_image_is_made_of_files_that_there_are() -> None:
    build = FILE["x-fed-rag"]["build"]
    assert (TOP / build["context"] / build["dockerfile"]).is_file()


def _own_folder(service: dict[str, Any]) -> str:
    return str(service["volumes"][0]).partition(":")[0].removeprefix("./")
