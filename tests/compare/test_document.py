"""Figures of a comparison's document by hand: cost, rounds, worst hospitals, and the tables that show them."""

from typing import Any

import pytest
from test_comparison import document, outcome  # noqa: F401  (the fixture)

from tasks.compare.document import (
    BASELINES,
    SplitPart,
    assemble,
    compare_split,
    configuration_rows,
    cost_row,
    sweep_point,
)
from tasks.compare.scores import worst_hospitals
from tasks.compare.tables import tables
from tasks.records.text_table import Table
from tasks.score.published import LIGHTFED
from tasks.settings import EvaluationSettings, Study
from tasks.settings.comparison import Comparison


def comparison(**given: Any) -> Comparison:
    study = Study(evaluation=EvaluationSettings(min_cell=1))
    configurations = {"fed+rag": {}, "fed": {"retrieval.k": 0}}
    return Comparison(study=study, **{"configurations": configurations, "splits": ("none",), "seeds": (0, 1)} | given)


def result(*rounds: dict[str, Any], hospitals: int = 2) -> dict[str, Any]:
    settings = Study().model_dump(mode="json")
    settings["federation"]["local_epochs"] = 3
    return {"rounds": list(rounds), "partition": {"hospitals": [{}] * hospitals}, "settings": settings}


def one(number: int, seconds: float, down: int, up: int, train: float, held: float | None) -> dict[str, Any]:
    return {
        "round": number,
        "seconds": seconds,
        "bytes_down": down,
        "bytes_up": up,
        "train_loss": train,
        "eval_loss": held,
    }


FIRST = result(one(1, 2.0, 100, 50, 4.0, 2.0), one(2, 4.0, 300, 70, 2.0, 1.0))
SECOND = result(one(1, 6.0, 200, 90, 1.0, 4.0), one(2, 12.0, 400, 110, 1.0, None))


def test_cost_is_the_mean_over_the_rounds_of_all_seeds() -> None:
    row: Any = {"name": "fed", "label": "fed (as called)"}
    memory = {"peak_memory_bytes": 7, "device_memory_bytes": None}
    assert cost_row(row, "embedded", [FIRST, SECOND], memory) == {
        "configuration": "fed",
        "label": "fed (as called)",
        "model": "embedded",
        "hospitals": 2,
        "seconds_per_round": 6.0,
        "bytes_down": 250.0,
        "bytes_up": 80.0,
        "peak_memory_bytes": 7,
        "device_memory_bytes": None,
    }


def test_a_point_of_a_sweep_has_its_losses_over_the_seeds_and_its_scores() -> None:
    answered = {seed: [outcome(case, float(case < right)) for case in range(6)] for seed, right in ((4, 3), (9, 4))}
    found = sweep_point("2", {"federation.rounds": 2}, answered, {4: FIRST, 9: SECOND}, 1)
    assert (found["label"], found["changes"], found["seeds"]) == ("2", {"federation.rounds": 2}, [4, 9])
    assert found["local_epochs"] == 3
    assert found["rounds"] == [
        {"round": 1, "train_loss": 2.5, "eval_loss": 3.0},
        {"round": 2, "train_loss": 1.5, "eval_loss": None},  # a mean of some seeds would be another figure
    ]
    scores = {entry["measure"]: entry for entry in found["scores"]}
    assert scores["correct"]["score"] == pytest.approx(7 / 12)
    assert scores["correct"]["n"] == 12
    assert {entry["group"] for entry in found["scores"]} == {"all"}
    assert {entry["configuration"] for entry in found["scores"]} == {"2"}


def test_rows_are_configurations_then_what_is_not_trained() -> None:
    changes = {"fed+rag": {}, "other": {"model.name": "llava-med-7b"}, "plain": {"model.name": "qwen2-vl-2b"}}
    rows = configuration_rows(comparison(configurations=changes), {"llava-med-7b": "/twins/x"})
    assert [row["name"] for row in rows] == [*changes, *BASELINES]
    assert [row["label"] for row in rows] == [
        "fed+rag",
        "other (twin of llava-med-7b: random weights)",
        "plain",
        "untrained base",
        "majority",
        "question only",
        "image and question",
        "copy nearest",
    ]
    assert [row["trained"] for row in rows] == [True] * 3 + [False] * 5
    assert [row["twin"] for row in rows] == [False, True] + [False] * 6
    assert [row["changes"] for row in rows] == [*changes.values(), *[{}] * 5]
    other = configuration_rows(comparison(configurations=changes), {"llava-med-7b": "smol-clip"})[1]
    assert (other["label"], other["twin"]) == ("other (smol-clip in place of llava-med-7b)", False)
    base = comparison(configurations={"fed+rag": {}}).study.model.name  # a configuration that does not name its base
    assert configuration_rows(comparison(configurations={"fed+rag": {}}), {base: "/twins/y"})[0]["twin"]


def split_part() -> SplitPart:
    rows = [outcome(case, float(case % 3 == 0), f"hospital-{case % 2 + 1}", modality="ct") for case in range(8)]
    named = {name: {0: rows, 1: rows} for name in ("fed+rag", "fed", *BASELINES)}
    figures = dict.fromkeys(LIGHTFED, 0.25)
    lightfed: dict[str, Any] = {"fed": {0: figures, 1: dict.fromkeys(LIGHTFED, 0.75)}}
    lightfed["fed"][1] = lightfed["fed"][1] | {"BLEU": None}
    reliance = {"n": 4, "alterations": {"as_is": {"score": 0.5}, "image_blank": {"score": 0.25}}}
    return compare_split(comparison(), "none", named, lightfed, {"fed": [reliance], "fed+rag": []})


def test_a_split_names_itself_in_all_that_it_says() -> None:
    part = split_part()
    for rows in (part.scores, part.tests, part.worst, part.lightfed, part.reliance):
        assert rows and all(row["split"] == "none" for row in rows)  # type: ignore[index]
    (row,) = part.lightfed
    assert row["configuration"] == "fed"
    assert {name: row[name] for name in LIGHTFED} == dict.fromkeys(LIGHTFED, 0.5) | {"BLEU": None}
    assert row["by_seed"]["0"] == dict.fromkeys(LIGHTFED, 0.25)
    assert list(row["by_seed"]) == ["0", "1"] and row["by_seed"]["1"]["BLEU"] is None
    assert [(each["configuration"], each["n"], each["score"]) for each in part.reliance] == [("fed", 4, 0.5)]
    assert part.images == {"images": 4, "images_by_seed": {"0": 4, "1": 4}}
    measures = {entry["measure"] for entry in part.scores if entry["group"] == "all"}
    assert {test["measure"] for test in part.tests} == measures
    assert {(test["a"], test["b"]) for test in part.tests if test["b"] == "fed" or test["a"] == "fed"}
    assert {entry["configuration"] for entry in part.scores} == {"fed+rag", "fed", *BASELINES}


def test_the_whole_document_holds_each_part_where_it_belongs() -> None:
    part, planned = split_part(), comparison(splits=("none", "image"))
    rows = configuration_rows(planned, {})
    sweeps: list[Any] = [{"name": "s", "configuration": "fed", "points": []}]
    cost, runs, failed = [{"configuration": "fed"}], [{"run": "r"}], [{"cell": "c", "reason": "why"}]
    seen: list[Any] = [{"part": "configurations", "split": "none", "names": ["fed"], "sentence": "It was."}]
    parts, titles = {"none": part}, {"none": "as published"}
    found = assemble(planned, rows, parts, titles, {"image": "none"}, sweeps, cost, runs, seen, failed)  # type: ignore[arg-type]
    title_and_counts = {"title": "as published", "images": 4, "images_by_seed": {"0": 4, "1": 4}}
    assert found == {
        "schema_version": 3,
        "name": planned.name,
        "reference": "fed+rag",
        "seeds": [0, 1],
        "splits": [
            {"name": "none", "same_as": None, **title_and_counts},
            {"name": "image", "same_as": "none", **title_and_counts},
        ],
        "configurations": rows,
        "scores": part.scores,
        "withheld": {"min_cell": 1, "groups": {"none": part.withheld}},
        "seen": seen,
        "worst_hospitals": part.worst,
        "tests": part.tests,
        "lightfed": part.lightfed,
        "reliance": part.reliance,
        "sweeps": sweeps,
        "cost": cost,
        "runs": runs,
        "settings": planned.model_dump(mode="json"),
        "failed": failed,
    }


def test_the_worst_hospital_is_the_lowest_and_the_first_by_name() -> None:
    def entry(group: str, value: str | None, score: float, measure: str = "correct", name: str = "a") -> Any:
        about = {"images": 3, "interval": [0.1, 0.9], "interval_holds": "test images"}
        return {
            "configuration": name,
            "measure": measure,
            "group": group,
            "value": value,
            "score": score,
            "n": 5,
        } | about

    entries = [
        entry("all", None, 0.6),
        entry("hospital", "south", 0.4),
        entry("hospital", "north", 0.4),
        entry("hospital", "east", 0.9),
        entry("hospital", "west", 0.1, measure="closed_f1"),
        entry("modality", "ct", 0.0),
        entry("all", None, 0.5, name="b"),  # of whose hospitals nothing is told
    ]
    (found,) = worst_hospitals(entries)
    assert found.pop("below_all") == pytest.approx(0.2)  # type: ignore[misc]
    assert found == {
        "configuration": "a",
        "hospital": "north",
        "n": 5,
        "images": 3,
        "score": 0.4,
        "interval": [0.1, 0.9],
        "interval_holds": "test images",
    }


def test_tables_show_the_figures_of_the_document(document: dict[str, Any]) -> None:  # noqa: F811
    """Cell by cell, of tables that hold no test and no group."""
    cost = {"seconds_per_round": 1.25, "bytes_down": 2_345_678, "bytes_up": 1_000}
    memory = {"peak_memory_bytes": 2_500_000_000, "device_memory_bytes": None}
    document["cost"] = [
        {"label": "fed+rag", **cost, **memory},
        {"label": "fed", **cost, "peak_memory_bytes": None, "device_memory_bytes": 1_004_000_000},
    ]
    document["sweeps"][0]["points"][0]["rounds"][-1]["eval_loss"] = 0.0625
    found = {table.title: table for table in tables(document)}
    twin = "fed-llava-med (twin of llava-med-7b: random weights)"
    assert found["What it took"] == Table(
        "What it took",
        ("", "peak memory, GB", "of the GPU, GB", "seconds a round", "MB down a round", "MB up a round"),
        (("fed+rag", "2.50", "", "1.2", "2.35", "0.00"), ("fed", "", "1.00", "1.2", "2.35", "0.00")),
        "All hospitals together; adapters as files, nothing else travels.",
    )
    reference = [row for row in document["scores"] if row["configuration"] == "fed+rag" and row["group"] == "all"]
    counts = {row["measure"]: row["n"] for row in reference}
    sizes = (f"closed accuracy n = {counts['closed_accuracy']}", f"open exact match n = {counts['open_exact_match']}")
    assert "; ".join(sizes) in found["Scores, original split"].note
    lightfed = found["LightFED's metrics, original split"]
    assert lightfed.note.endswith("Mean of the seeds.")
    assert lightfed.headings == ("", "Accuracy", "F1-Score", "BLEU", "ROUGE-L")
    assert lightfed.rows == tuple((name, "0.500", "", "0.250", "1.000") for name in ("fed+rag", twin, "untrained base"))
    worst = found["Worst hospital, original split"]
    assert worst.headings == ("", "hospital", "n", "right answers", "below all by")
    assert len(worst.rows) == 3
    for row, of in zip(worst.rows, document["worst_hospitals"], strict=True):
        low, high = of["interval"]
        score = f"{of['score']:.3f} [{low:.3f}, {high:.3f}]"
        assert row[1:] == (of["hospital"], str(of["n"]), score, f"{of['below_all']:.3f}")
    reliance = found["Does it look? Original split"]
    assert (reliance.headings[0], reliance.headings[-1]) == ("", "ignores images")
    for row in reliance.rows:
        assert row[1:] == ("70%", "", "", "", "", "", "", "no")  # of 35 right answers 24.5 are left
    assert "of 110 questions" in reliance.note and "keeps 80% with a blank image" in reliance.note
    (sweep,) = (table for title, table in found.items() if title.startswith("Sweep of retrieval.k"))
    assert (sweep.headings[:2], sweep.headings[-2:]) == (("retrieval.k", "n"), ("training loss", "held-out loss"))
    ((label, n, *_, train, held),) = sweep.rows
    assert (label, n, train, held) == ("1", "16", "0.500", "0.062")
    assert sweep.note == "Configuration fed+rag."


def test_what_is_untold_has_no_table_and_no_figure(document: dict[str, Any]) -> None:  # noqa: F811
    titles = [table.title for table in tables(document)]
    assert "What it took" not in titles
    document["reliance"] = []
    document["sweeps"] = []
    left = [table.title for table in tables(document)]
    assert left == [title for title in titles if not title.startswith(("Does it look", "Sweep"))]
    assert not any("image-disjoint" in title for title in left)  # it moves no case: the original's tables are its own
