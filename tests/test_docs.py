"""What the documents say is still so."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from command import shell

from benchmarks import walk
from flows.cli.settings_file import describe, load_study
from tasks.ingest.datasets import DATASETS
from tasks.settings import Dataset, StrategySettings, Study
from tasks.settings.attack import Attack, AttackTable
from tasks.settings.comparison import Comparison

TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md")), TOP / "data/README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading of it."""
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        place = page.parent / target if target else page
        assert target.startswith("http") or place.exists(), target
        assert not heading or heading in anchors(place), f"{target}#{heading}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    lines = page.read_text(encoding="utf-8").splitlines()
    headings = (line.lstrip("#").strip().lower() for line in lines if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def test_cleaning_keeps_withdrawals(tmp_path: Path) -> None:
    shutil.copy(TOP / "Makefile", tmp_path)
    kept = ["artifacts/README.md", "artifacts/hospitals/north/forgotten.json"]
    gone = ["artifacts/hospitals/north/cases/0/cases.parquet", "artifacts/runs/one/README.md", "artifacts/.records/a"]
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "artifacts/latest").symlink_to("runs/one", target_is_directory=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = [path for path in tmp_path.rglob("*") if not path.is_dir() or path.is_symlink()]
    assert {path.relative_to(tmp_path).as_posix() for path in left} == {"Makefile", *kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_named_in_commands_exist(page: Path) -> None:
    for name, value in re.findall(r"--set ([a-z_.]+)=([^\s`]+)", page.read_text(encoding="utf-8")):
        if "." in name and name != "a.b":
            load_study(None, (f"{name.removeprefix('study.')}={value}",))  # a comparison's base study


def test_every_dataset_is_documented() -> None:
    text = (TOP / "docs/datasets.md").read_text(encoding="utf-8")
    assert get_args(Dataset) == tuple(DATASETS)
    assert all(f"`{name}`" in text for name in DATASETS)


def test_every_strategy_is_documented() -> None:
    text = (TOP / "docs/federation.md").read_text(encoding="utf-8")
    for name in get_args(StrategySettings.model_fields["strategy"].annotation):
        assert re.search(rf"^\| .*`{name}`.* \|", text, flags=re.MULTILINE), name


def test_every_attack_is_documented() -> None:
    text = (TOP / "docs/federation.md").read_text(encoding="utf-8")
    for name in get_args(Attack):
        assert re.search(rf"^\| `{name}` \|", text, flags=re.MULTILINE), name


def test_the_deployments_are_valid_settings_of_their_flows() -> None:
    named = yaml.safe_load((TOP / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    nightly, weekly, daily, base, monthly, federation = named
    assert nightly["name"] == "nightly"
    assert nightly["entrypoint"] == "flows/fed_rag.py:fed_rag"
    assert nightly["schedules"][0]["cron"]
    assert Study.model_validate(nightly["parameters"]["study"]) == Study()
    assert (weekly["name"], weekly["entrypoint"]) == ("weekly", "flows/compare.py:compare")
    assert weekly["schedules"][0]["cron"]
    assert Comparison.model_validate(weekly["parameters"]["comparison"]) == Comparison()
    assert (daily["name"], daily["entrypoint"]) == ("daily", "flows/audit.py:audit")
    assert Study.model_validate(daily["parameters"]["study"]) == Study()
    assert (base["name"], base["entrypoint"], base["parameters"]) == ("base", "flows/pretrain.py:pretrain", {})
    assert "schedules" not in base  # it trains for an hour or more
    assert (monthly["name"], monthly["entrypoint"]) == ("monthly", "flows/attack.py:attack")
    assert monthly["schedules"][0]["cron"]
    assert AttackTable.model_validate(monthly["parameters"]["table"]) == AttackTable()
    assert (federation["name"], federation["entrypoint"]) == ("nightly", "flows/federation.py:federation")
    assert federation["parameters"].keys() == {"study", "keys", "listen"}
    assert Study.model_validate(federation["parameters"]["study"]).federation.runtime == "flower"
    assert federation["schedules"][0]["active"] is False  # before hospitals have joined it would wait for them


def test_help_explains_every_setting() -> None:
    command = [str(Path(sys.executable).with_name("fed-rag")), "run", "--help"]
    environment = shell() | {"COLUMNS": "200", "NO_COLOR": "1"}
    printed = " ".join(subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split())
    for name, _, text in describe():
        assert name in printed
        assert text.split()[0] in printed


def test_the_datasets_are_listed_with_what_they_need() -> None:
    command = [str(Path(sys.executable).with_name("fed-rag")), "datasets"]
    environment = shell() | {"COLUMNS": "400", "NO_COLOR": "1"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    for name, each in DATASETS.items():
        assert name in printed
        assert all(text in printed for text in (each.layout, each.licence, each.needs, each.hub or ""))


def test_the_shipped_base_is_small() -> None:
    assert sum(path.stat().st_size for path in (TOP / "data/base").iterdir()) <= 12 * 2**20


def test_the_ways_through_the_stages_are_as_the_code_has_them() -> None:
    text = walk.PAGE.read_text(encoding="utf-8")
    assert walk.drawn(text) == text
    assert all(f"`{stage.split('.')[0]}/step.py: {stage.split('.')[1]}`" in text for stage in walk.CASE + walk.ADAPTER)


def test_the_map_names_every_folder() -> None:
    page = (TOP / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `((?:tasks|flows)/[a-z]+)/` \|", page, flags=re.MULTILINE))
    folders = {path.parent for top in ("tasks", "flows") for path in (TOP / top).glob("*/__init__.py")}
    assert named == {path.relative_to(TOP).as_posix() for path in folders}


@pytest.mark.parametrize(
    ("page", "begins", "ends", "heading", "tables", "least"),
    [
        ("security.md", "## Threats", "## Secrets", "shown by", 6, 30),
        ("operations.md", "## Faults", "## PostgreSQL", "run by", 4, 20),
    ],
)
def test_each_threat_and_each_fault_names_tests_that_exist(
    page: str, begins: str, ends: str, heading: str, tables: int, least: int
) -> None:
    """Of tables with a test in the last column, one for each attacker, or each kind of fault."""
    whole = (TOP / "docs" / page).read_text(encoding="utf-8")
    text = whole[whole.index(begins) : whole.index(ends)]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|") and "---" not in line]
    lines = [row for row in rows if row[-1].strip() != heading]
    assert len(lines) > least and len(rows) - len(lines) == tables
    files = {path.stem: path.read_text(encoding="utf-8") for path in (TOP / "tests").rglob("test_*.py")}
    for row in lines:
        assert re.search(r"`test_\w+::test_\w+`", row[-1]), row
    for file, test in re.findall(r"`(test_\w+)::(test_\w+)`", whole):
        assert re.search(rf"^(?:async )?def {test}\(", files[file], flags=re.MULTILINE), f"{file}::{test}"
