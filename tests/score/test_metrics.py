"""A metric is one entry: registered here, it is in rows, sums, documents, tables and pages without another edit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.compare.document import BASELINES, assemble, compare_split, configuration_rows
from tasks.compare.tables import tables
from tasks.records import Case, Outcome, Prediction
from tasks.records.comparison import ComparisonDocument
from tasks.records.text_table import markdown
from tasks.report import results as study_results
from tasks.report.intervals import details
from tasks.report.page.comparison import comparison_page
from tasks.report.page.render import DataStatements, model_card, study_page
from tasks.report.results import hospital_rows, score_rows
from tasks.score.file import score_document
from tasks.score.image_sums import read_sums, write_sums
from tasks.score.lines import Line
from tasks.score.metrics import METRICS, Metric
from tasks.score.outcomes import judge, outcomes
from tasks.score.published import LIGHTFED
from tasks.score.sharing import share
from tasks.settings import EvaluationSettings, Study
from tasks.settings.comparison import Comparison

ANSWERS = ("cyst", "a large cyst", "mass", "")
"""To questions whose answer is `cyst`; three in four are longer or shorter than it."""


def other_length(prediction: str, reference: str) -> float:
    """1 where an answer has not as many letters as the reference."""
    return float(len(prediction) != len(reference))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric of open questions, and one of closed ones that scores by the same rule."""
    for entry in (
        Metric("open_length", "open length", "open", "length", other_length, decimals=2, higher_is_better=False),
        Metric(
            "closed_length",
            "closed length",
            "closed",
            "closed_length",
            other_length,
            decimals=2,
            higher_is_better=False,
        ),
    ):
        monkeypatch.setitem(METRICS, entry.name, entry)


@pytest.fixture
def judged() -> list[Outcome]:
    """Of one hospital: an answer to each of four closed and of eight open questions, each about its own image."""
    cases = [
        Case(f"d:{n}", f"i{n}", "What?", "yes" if n < 4 else "cyst", "closed" if n < 4 else "open", "test", "d", "en")
        for n in range(12)
    ]
    answers = [
        Prediction("fed+rag", case.id, "north", case.kind, case.question, case.answer, said, (), confidence=0.5)
        for case, said in zip(cases, ("yes", "no", "no", "yes", *ANSWERS, *ANSWERS), strict=True)
    ]
    return outcomes(answers, [judge(each) for each in answers], cases)


def test_it_is_in_the_rows_and_the_summary_of_a_file() -> None:
    scored = score_document([Line(n, said, "cyst", "open") for n, said in enumerate(ANSWERS)])
    assert [row["length"] for row in scored["rows"]] == [0, 1, 0, 1]
    assert scored["summary"]["open"]["length"] == 0.5
    low, high = scored["summary"]["intervals"]["open"]["length"]
    assert 0 <= low < 0.5 < high <= 1


def test_it_is_in_what_a_hospital_shares(judged: list[Outcome], tmp_path: Path) -> None:
    shared = share(judged, 1)
    assert shared.tallies["fed+rag"]["open"]["sums"]["length"] == 4
    with (tmp_path / "sums.parquet").open("wb") as sink:
        write_sums(sink, shared.sums)
    found = [row for row in read_sums(tmp_path / "sums.parquet") if row.group == "all"]
    assert found == [row for row in shared.sums if row.group == "all"]
    assert sum(row.sums["open_length"] or 0 for row in found) == 4
    assert sum(row.sums["closed_length"] or 0 for row in found) == 2


@pytest.fixture
def document(judged: list[Outcome]) -> dict[str, Any]:
    """`results.json` of that hospital."""
    sharing = share(judged, 1)
    shared = {"hospital": "north", "tallies": sharing.tallies, "withheld": sharing.withheld, "calibration": {}}
    about = study_results.About(
        run="r",
        trained=(),
        model={"name": "embedded", "revision": None, "content": "0a"},
        settings=Study().model_dump(mode="json"),
        dataset={"dataset": {"d": 12}, "images": 12, "rejected": 0},
        partition={"scheme": "site", "hospitals": [{"hospital": "north", "images": 12} | HOLDS]},
        split={"disjoint": "none", "moved_cases": 0, "test": 12, "train": 2, "published_split_shares": {}},
        timings_s={},
        peak_memory_bytes=1,
    )
    rounds = [{"round": 1, "train_loss": 1.0, "eval_loss": None}]
    measured = study_results.Measured(details([(shared, sharing.sums)], 0))
    return study_results.assemble([shared], rounds, measured, about)


HOLDS = {"test_closed": 4, "test_open": 8, "train_closed": 1, "train_open": 1}
DATA = DataStatements("as the data gives it", "no row was left out", 12, "No negative control.")


def test_it_is_in_the_document_the_tables_the_page_and_the_card_of_a_study(document: dict[str, Any]) -> None:
    assert document["configurations"]["fed+rag"]["open"]["length"] == 0.5
    scores = {entry["measure"]: entry for entry in document["scores"] if entry["group"] == "all"}
    assert (scores["open_length"]["score"], scores["open_length"]["n"]) == (0.5, 8)
    assert (scores["closed_length"]["score"], scores["closed_length"]["n"]) == (0.5, 4)
    rows = {"": score_rows(document), "fed+rag": hospital_rows(document, "fed+rag")}
    card, page = model_card(document, rows, DATA), study_page(document, rows, DATA)
    plain = study_results.markdown(document)
    for text in (plain, card, page):
        assert "open length (lower is better)" in text
    assert "closed length (lower is better)" in plain
    low, high = scores["closed_length"]["interval"]
    assert f"0.50 [{low:.2f}, {high:.2f}]" in plain
    assert json.loads(json.dumps(document)) == document


def test_a_run_from_before_it_has_a_dash(document: dict[str, Any]) -> None:
    del document["configurations"]["fed+rag"]["open"]["length"]
    headings, row = score_rows(document)
    assert dict(zip(headings, row, strict=True))["open length (lower is better)"] == "-"


def test_it_is_in_a_comparison(judged: list[Outcome]) -> None:
    study = Study(evaluation=EvaluationSettings(min_cell=1))
    comparison = Comparison(study=study, configurations={"fed+rag": {}}, splits=("none",), seeds=(0,))
    named: dict[str, dict[int, list[Outcome]]] = {
        name: {0: [replace(row, scores={**row.scores, "length": float(name == "base")}) for row in judged]}
        for name in ("fed+rag", *BASELINES)
    }
    lightfed: dict[str, Any] = {name: {0: dict.fromkeys(LIGHTFED, 0.0)} for name in named}
    part = compare_split(comparison, "none", named, lightfed, {})
    found: ComparisonDocument = assemble(
        comparison, configuration_rows(comparison, {}), {"none": part}, {"none": "as given"}, {}, [], [], [], [], []
    )
    by_name = {each["configuration"]: each["score"] for each in found["scores"] if each["measure"] == "open_length"}
    assert (by_name["fed+rag"], by_name["base"]) == (0, 1)
    (test,) = [each for each in found["tests"] if (each["measure"], each["b"]) == ("open_length", "base")]
    assert test["difference"] == -1
    for text in (markdown(tables(found)), comparison_page(found, tables(found))):
        assert "closed length (lower is better)" in text and "open length (lower is better)" in text
        assert "1.00 [1.00, 1.00]" in text
