"""A run's folder: its own though another begins in the same second, whole where hospitals lack cases, `latest` last."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from ingest_samples import picture

from flows import run_folder
from flows.report import write_card, write_pages
from flows.run_folder import COUNTED, SharedRefs, write_run
from tasks.answer.step import score_hospital
from tasks.partition.counts import hospital_table, splits_of
from tasks.records import Case, Image, Kind, Prediction, Split, write_table
from tasks.records.federation import HospitalRefs
from tasks.settings import EvaluationSettings, Study
from tasks.store import MANIFEST, Ref, writing
from tasks.store.runs import point_latest

Questions = dict[str, list[tuple[Split, Kind]]]
"""By hospital, split and kind of each of its cases."""

SPARSE: dict[str, Questions] = {
    "none at the second": {"hospital-1": [("train", "closed"), ("test", "open")], "hospital-2": [("train", "open")]},
    "none at the first": {"hospital-1": [("train", "open")], "hospital-2": [("train", "closed"), ("test", "closed")]},
    "one kind each": {
        "hospital-1": [("train", "open"), ("test", "closed")],
        "hospital-2": [("train", "closed"), ("test", "open")],
    },
    "nothing open": {"hospital-1": [("train", "closed"), ("test", "closed")], "hospital-2": [("train", "closed")]},
    "nothing closed": {"hospital-1": [("train", "open"), ("test", "open")]},
    "no test case": {"hospital-1": [("train", "open")], "hospital-2": [("train", "closed")]},
    "validation at one": {
        "hospital-1": [("train", "open"), ("validation", "open")],
        "hospital-2": [("test", "closed")],
    },
}


def cases_of(questions: Questions) -> dict[str, list[Case]]:
    return {
        hospital: [
            Case(f"{hospital}:{n}", f"{hospital}-{n}", "Is it?", "yes", kind, split, "table", "en")
            for n, (split, kind) in enumerate(rows)
        ]
        for hospital, rows in questions.items()
    }


def table(
    area: str, stage: str, name: str, record: type, rows: Sequence[Any], inputs: list[str], key: str = "0", **more: Any
) -> Ref:
    with writing(area, stage, key) as folder:
        folder.inputs = inputs
        with folder.open(name) as sink:
            write_table(sink, record, rows)
        for other, value in more.items():
            if isinstance(value, dict):
                folder.write_json(f"{other}.json", value)
            else:
                with folder.open(f"{other}.parquet") as sink:
                    write_table(sink, Image, value)
    return folder.ref


def source(stage: str, summary: dict[str, Any], **files: Any) -> Ref:
    with writing("source", stage, "0") as folder:
        for name, value in files.items():
            folder.write_json(f"{name}.json", value)
        folder.summary = summary
    return folder.ref


REASON = "trained on another base"


def run_of(
    questions: Questions,
    notes: dict[str, int] | None = None,
    control: Ref | None = None,
    said: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """The folder of a run in which all is answered with yes, but for the cases in `said`; no study is run for it."""
    held = cases_of(questions)
    every = [case for cases in held.values() for case in cases]
    owner = {case.image_id: hospital for hospital, cases in held.items() for case in cases}
    counts = {"cases": len(every), "images": len(every), "captions": 0, "rejected": 1, "dataset": {"table": len(every)}}
    counts |= {name: {} for name in COUNTED if name != "dataset"}
    rejected = [{"file": "a.csv", "row": 3, "reason": "expected an image file, found no such file"}]
    split = {"disjoint": "none", "moved_cases": 0} | splits_of(every)
    assigned = {"scheme": "iid", "split": split, "hospitals": hospital_table(every, owner)}
    made = [
        source("ingest", counts | {"notes": notes or {}}, rejected=rejected),
        source("partition", assigned),
        source("audit", {"same_image": 0}, audit={"train_test": {"test_cases": 1}}),
    ]
    hospitals, answered, scored = list[HospitalRefs](), list[list[Ref]](), list[Ref]()
    for hospital, cases in held.items():
        area, tests = f"hospitals/{hospital}", [case for case in cases if case.split == "test"]
        answers = [
            Prediction(name, case.id, hospital, case.kind, "Is it?", "yes", said.get(case.id, "yes"), (), (), 0.5)
            for name in ("fed+rag", "majority")
            for case in tests
        ]
        pictures = [Image(case.image_id, picture(number), 8, 8) for number, case in enumerate(cases)]
        from_where = [ref.path for ref in made]
        held_there = table(area, "cases", "cases.parquet", Case, cases, from_where, images=pictures)
        key = "-".join(["0", *said.values()])
        predictions = table(area, "predictions", "predictions.parquet", Prediction, answers, [held_there.path], key)
        answered.append([predictions])
        scored.append(score_hospital.fn(hospital=hospital, cases=held_there, predictions=[predictions], min_cell=1))
        others = dict.fromkeys(("features", "library", "adapter"), made[0])
        hospitals.append(HospitalRefs(name=hospital, cases=held_there, **others))
    row = {"round": 1, "train_loss": 1.0, "eval_loss": None, "samples": {}, "quarantined": {"north": REASON}}
    rounds = [row | {"asked": list(held), "missing": {"south": "MemoryError"}}]
    study = Study(evaluation=EvaluationSettings(min_cell=1))
    study = study.model_copy(update={"dataset": study.dataset.model_copy(update={"name": "table"})})
    shared = SharedRefs(copies=made[2], losses=(), scores=scored, control=control)
    return write_run(study, "content", hospitals, {"predictions": answered, "scores": scored}, rounds, shared)


def test_who_was_left_out_of_a_round_is_told_in_the_runs_documents() -> None:
    run = run_of(next(iter(SPARSE.values())))
    page = write_pages(run)[0].read_text(encoding="utf-8")
    assert "Hospitals left out of rounds" in page and REASON in page
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["rounds"][0]["quarantined"] == {"north": REASON}
    record = json.loads((run / "participation.json").read_text(encoding="utf-8"))
    assert record["rounds"][0]["missing"] == {"south": "MemoryError"}
    left_out = f"south (did not answer: MemoryError), north ({REASON})"
    assert f"| 1 | 1.0000 | - | {left_out} |" in (run / "results.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", SPARSE)
def test_a_run_whose_hospitals_lack_cases_has_pages_and_a_card_with_zeros(name: str) -> None:
    questions = SPARSE[name]
    run = run_of(questions)
    pages = write_pages(run)
    card = write_card(run).read_text(encoding="utf-8")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert len(pages) == 1 + len(questions)
    rows = {row["hospital"]: row for row in results["partition"]["hospitals"]}
    for hospital, cases in questions.items():
        for split in ("train", "test"):
            for kind in ("closed", "open"):
                assert rows[hospital][f"{split}_{kind}"] == cases.count((split, kind))  # type: ignore[arg-type]
        trained, tested = (sum(each == split for each, _ in cases) for split in ("train", "test"))
        assert f"| {hospital} | {len(cases)} | {trained} | {tested} |" in card
        page_of_hospital = pages[1 + list(questions).index(hospital)].read_text(encoding="utf-8")
        assert ("it was asked nothing" in page_of_hospital) == (tested == 0)
    for found in (*results["configurations"].values(), *results["baselines"].values()):
        assert found["hospitals"].keys() == questions.keys()
        for kind in ("closed", "open"):
            assert sum(each[kind]["n"] for each in found["hospitals"].values()) == found[kind]["n"]
    has_tests = {kind: any(("test", kind) in cases for cases in questions.values()) for kind in ("closed", "open")}
    assert ("not asked" in pages[0].read_text(encoding="utf-8")) == (not all(has_tests.values()))
    # The page's plot names every count that a hospital can have, and counts every case.
    page = pages[0].read_text(encoding="utf-8")
    assert all(f">{each}<" in page for each in ("train closed", "train open", "test closed", "test open"))
    assert all(f"{hospital} {len(cases)}" in page for hospital, cases in questions.items())


@pytest.mark.parametrize("name", SPARSE)
def test_the_page_of_a_run_of_before_is_whole_too(name: str) -> None:
    """Earlier versions left out what a hospital, or a split, has none of."""
    run = run_of(SPARSE[name])
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["partition"]["hospitals"] = [
        {column: count for column, count in row.items() if count} for row in results["partition"]["hospitals"]
    ]
    split = results["split"]
    results["split"] = {name: split[name] for name in split if split[name] or name == "moved_cases"}
    for new in ("origins", "audited_test_cases", "control"):
        results["split"].pop(new, None)
    results["split"]["published_split_shares"] = {"same_image": 0}
    del results["dataset"]["left_out"]
    for group in ("lora", "federation"):  # settings that a later version adds have their defaults here
        for setting in set(results["settings"][group]) - {"r", "alpha", "targets", "strategy", "local_epochs"}:
            del results["settings"][group][setting]
    with writing("", "runs", run.name) as folder:
        shutil.copytree(run, folder.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        folder.write_json("results.json", results)
    page = write_pages(run)[0].read_text(encoding="utf-8")
    assert all(f">{each}<" in page for each in ("train closed", "train open", "test closed", "test open"))
    assert "1 row could not be used" in page
    assert "| hospital-1 |" in write_card(run).read_text(encoding="utf-8")


def test_rows_left_out_are_counted_wherever_results_are() -> None:
    notes = {"rows without an answer left out": 67, "cases made into a test split": 1, "rows kept that repeat": 3}
    run = run_of(SPARSE["one kind each"], notes)
    sentence = "left out 68 of 72 rows: 67 rows without an answer, 1 unusable row (expected an image file)"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["dataset"]["left_out"] == {"rows without an answer": 67, "unusable rows (expected an image file)": 1}
    for text in (run / "results.md", write_pages(run)[0], write_card(run)):
        assert sentence in text.read_text(encoding="utf-8")


def test_the_split_is_described_as_it_is() -> None:
    made = run_of(SPARSE["one kind each"], {"cases made into a test split": 1})
    given = run_of(SPARSE["one kind each"])
    for run, said in ((made, "made from the data by whole images"), (given, "as the data gives it")):
        printed = (run / "results.md").read_text(encoding="utf-8")
        assert f"Split: {said}" in printed
        assert "the audit found nothing of a test image or its patient in training" in printed
        for text in (
            printed,
            write_pages(run)[0].read_text(encoding="utf-8"),
            write_card(run).read_text(encoding="utf-8"),
        ):
            assert "published split" not in text and "as published" not in text


def test_the_negative_control_is_told_and_is_not_taken_for_the_dataset() -> None:
    with writing("source", "ingest", "another") as unrelated:
        unrelated.summary = {"cases": 99}
    shares = {"n": 1, "rate": 0.25, "interval": [0.1, 0.5]}
    counts = {"n": 4, "same_image": shares, "near_duplicate_image": shares, "flipped_image": shares}
    with writing("source", "audit-control", "0") as folder:
        folder.inputs = [unrelated.ref.path]
        folder.write_json(
            "control.json", {"dataset": "theirs", "test_images": counts, "control_images": counts, "examples": [["a"]]}
        )
    run = run_of(SPARSE["one kind each"], control=folder.ref)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["dataset"]["cases"] == 4
    assert results["split"]["control"] == {"dataset": "theirs", "test_images": counts, "control_images": counts}
    assert "audit-control" in results["timings_s"]
    for text in (write_pages(run)[0].read_text(encoding="utf-8"), write_card(run).read_text(encoding="utf-8")):
        assert "1 of 4 (0.250 [0.100, 0.500]) images of theirs" in text
    plain = run_of(SPARSE["one kind each"])
    assert json.loads((plain / "results.json").read_text(encoding="utf-8"))["split"]["control"] is None
    assert "No negative control: " in write_pages(plain)[0].read_text(encoding="utf-8")


class Stopped(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Stopped":
        return cls(2026, 1, 1, tzinfo=tz)


def test_two_runs_of_one_second_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.store.runs.datetime", Stopped)
    runs = [run_of(SPARSE["one kind each"]) for _ in range(3)]
    assert len(set(runs)) == 3 and all((run / "results.json").exists() for run in runs)
    assert {json.loads((run / "results.json").read_text(encoding="utf-8"))["run"] for run in runs} == {
        run.name for run in runs
    }


@pytest.mark.parametrize(("moved", "told"), [(0, 0), (4, "withheld"), (5, 5)])
def test_few_moved_cases_are_withheld(moved: int, told: int | str) -> None:
    audited = source("audit", {"same_image": 0}, audit={"train_test": {"test_cases": 9}})
    split = run_folder._split(Study(), {"moved_cases": moved}, {"notes": {}}, audited)
    assert split["moved_cases"] == told


def test_latest_stays_until_it_is_pointed() -> None:
    first = run_of(SPARSE["one kind each"])
    assert not Path("artifacts/latest").exists()
    write_pages(first)
    point_latest(first)
    run_of(SPARSE["one kind each"])
    assert Path("artifacts/latest").resolve() == first.resolve()


def test_every_hospital_has_the_same_columns() -> None:
    cases = [case for rows in cases_of(SPARSE["validation at one"]).values() for case in rows]
    moved = [replace(case, split="train") if case.split == "test" else case for case in cases]
    table = hospital_table(moved, {case.image_id: case.image_id[:10] for case in moved})
    assert [list(row) for row in table] == 2 * [
        [
            "hospital",
            "images",
            *(f"{split}_{kind}" for split in ("test", "train", "validation") for kind in ("closed", "open")),
        ]
    ]
    assert splits_of(moved) == {"test": 0, "train": 2, "validation": 1}
