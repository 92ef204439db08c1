"""What the dashboard shows of this project: the form of a custom run; in a real browser, runs and their artifacts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Tab, opened
from command import Server
from machine import Machine, wait_for
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.attack import attack
from flows.audit import audit
from flows.compare import compare
from flows.fed_rag import fed_rag


@pytest.mark.parametrize("flow", [fed_rag, compare, attack, audit], ids=lambda flow: flow.name)
def test_the_form_of_a_run_explains_each_setting_and_bounds_each_number(flow: Flow[..., Any]) -> None:
    """The dashboard draws it from this schema: descriptions as text, enums as dropdowns, bounds as checks."""
    schema = parameter_schema(flow).model_dump()
    sections = schema["definitions"]
    assert len(sections) > 10
    for name, section in sections.items():
        for field, stated in section["properties"].items():
            explained = {**sections.get(str(stated.get("$ref")).rsplit("/", 1)[-1], {}), **stated}
            assert explained.get("description"), f"{name}.{field}"
            for kind in stated.get("anyOf", [stated]):
                bounded = kind.keys() & {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
                assert kind.get("type") not in ("integer", "number") or bounded, f"{name}.{field}"
    rounds = sections["FederationSettings"]["properties"]
    assert "fedavg" in rounds["strategy"]["enum"] and rounds["fraction"]["maximum"] == 1


ICONS = ("/favicon.ico", "/ico/undefined.svg")
"""Which the dashboard of this version asks for and has not."""


@pytest.fixture(scope="module")
def machine(database: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    home = tmp_path_factory.mktemp("dashboard-prefect")
    machine = Machine(tmp_path_factory.mktemp("dashboard"), Server(home, database), tiny_folder)
    try:
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Tab]:
    """A page on which nothing may go wrong."""
    with opened("data:text/html,", tmp_path) as page:
        yield page
        assert [each for each in page.messages if is_error(each) and not any(icon in each for icon in ICONS)] == []


def is_error(message: str) -> bool:
    """Of a script, or written to the console as one."""
    told = json.loads(message)
    return "exceptionDetails" in told or "error" in (told.get("type"), told.get("entry", {}).get("level"))


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
in_a_browser = [needs_chromium, pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(1800)]


class TestInABrowser:
    """On one server with a worker."""

    pytestmark = in_a_browser

    def test_the_form_shows_descriptions_and_dropdowns_of_nested_settings(self, machine: Machine, page: Tab) -> None:
        page.go(f"{address(machine)}/deployments/deployment/{machine.deployment()['id']}/run")
        page.reads(
            "The adapter that is trained.", "Local training and its rounds.", "How updates become the next adapter"
        )
        options = (
            "[...document.querySelectorAll('select option, [role=option], li')].map(each => each.innerText.trim())"
        )
        page.reads("trimmed-mean")
        assert {"fedavg", "trimmed-mean", "site", "dirichlet"} <= set(page.value(options))

    def test_a_run_that_failed_at_one_hospital_is_retried_and_that_one_alone_works_again(
        self, machine: Machine, page: Tab
    ) -> None:
        blocked = machine.folder / "artifacts/hospitals/hospital-2/library"
        blocked.parent.mkdir(parents=True)
        blocked.write_text("in the way")
        run = machine.begin()
        assert machine.ended(run) == "Failed"
        page.go(f"{address(machine)}/runs/flow-run/{run}")
        page.reads("Failed", "hospital-2")
        blocked.unlink()
        before = {path: path.stat().st_ino for path in machine.folder.glob("artifacts/**/manifest.json")}
        page.click("Retry")
        page.wait("document.querySelector('[role=dialog], .p-modal') !== null")
        page.value(
            "[...document.querySelectorAll('.p-modal button, [role=dialog] button')]"
            ".find(each => each.innerText.trim() === 'Retry').click()"
        )
        wait_for(lambda: machine.state(run) == "Completed", 300)
        assert {path: path.stat().st_ino for path in before} == before
        prepared = [part["id"] for part in machine.server.parts_of(run) if part["name"] == "prepare"][-1]
        found = machine.server.post("task_runs/filter", {"flow_runs": {"id": {"any_": [prepared]}}, "limit": 200})
        states = {each["name"]: each["state_name"] for each in sorted(found, key=lambda each: str(each["start_time"]))}
        assert (states["library hospital-1"], states["library hospital-2"]) == ("Cached", "Completed")

    def test_the_page_of_a_run_and_its_artifacts_open(self, machine: Machine, page: Tab) -> None:
        run = machine.begin()
        assert machine.ended(run) == "Completed"
        page.go(f"{address(machine)}/runs/flow-run/{run}")
        page.reads("Completed")
        page.click("Subflow Runs")
        page.reads("prepare", "round 1", "evaluate")
        page.click("Artifacts")
        page.reads("rounds", "results")
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["rounds"]}}}
        (rounds,) = machine.server.post("artifacts/filter", wanted)
        page.go(f"{address(machine)}/artifacts/artifact/{rounds['id']}")
        page.reads("Losses of each round, and what it took")
        shown = page.value("[...document.querySelectorAll('table th')].map(each => each.innerText.trim())")
        assert "round" in [each.lower() for each in shown]


def address(machine: Machine) -> str:
    """Of the dashboard."""
    return machine.server.url.removesuffix("/api")
