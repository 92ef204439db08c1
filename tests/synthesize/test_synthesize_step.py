"""The questions step, and what the flow does with and without it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import StudyError
from tasks.ingest import phantom
from tasks.records import Caption, Case, Synthetic, read_table, write_table
from tasks.settings import Study, SynthesisSettings
from tasks.store import Ref, writing


def dataset(cases: list[Case], captions: list[Caption]) -> Ref:
    with writing("source", "ingest", "k") as folder:
        with folder.open("cases.parquet") as sink:
            write_table(sink, Case, cases)
        with folder.open("captions.parquet") as sink:
            write_table(sink, Caption, captions)
        folder.summary = {"cases": len(cases), "captions": len(captions)}
    return folder.ref


def test_published_and_synthetic_cases_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.synthesize.step import synthesize_questions

    monkeypatch.chdir(tmp_path)
    source = phantom.read(images=6, seed=0, public=False, test_fraction=0.2)
    choice = replace(source.cases[0], id="c:1", question="Which of these is it?", answer="CT.", options=("CT", "MRI"))
    ref = dataset([choice, *source.cases], source.captions)
    chosen = SynthesisSettings(generator="rules", choices="open")
    made = synthesize_questions.fn(dataset=ref, settings=chosen, content="", device="", seed=0)
    cases = read_table(made.folder / "cases.parquet", Case)
    origins = read_table(made.folder / "synthetic.parquet", Synthetic)
    synthetic = cases[len(source.cases) + 1 :]
    assert (cases[0].question, cases[0].answer, cases[0].options) == ("What is it?", "CT", ())
    assert cases[1 : len(source.cases) + 1] == source.cases
    assert [case.id for case in synthetic] == [origin.case_id for origin in origins]
    assert {case.split for case in synthetic} == {"train"}  # the published test split is scored as published
    assert read_table(made.folder / "choices.parquet", Case) == [choice]
    report = json.loads((made.folder / "quality.json").read_text())
    assert report["after"]["yes_no"]["yes_share"] == 0.5
    summary = made.manifest()["summary"]
    assert summary["synthetic"] == len(synthetic) > 50
    assert summary["choices"] == {"published": 1, "without options": 1}


def test_rewording_alone_makes_no_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.synthesize.step import synthesize_questions

    monkeypatch.chdir(tmp_path)
    source = phantom.read(images=4, seed=0, public=True, test_fraction=0.2)
    ref = dataset(source.cases, source.captions)
    made = synthesize_questions.fn(
        dataset=ref, settings=SynthesisSettings(choices="open"), content="", device="", seed=0
    )
    assert read_table(made.folder / "cases.parquet", Case) == source.cases
    assert read_table(made.folder / "synthetic.parquet", Synthetic) == []


def test_captions_alone_ask_for_a_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.prepare import prepare_questions
    from flows.progress import Steps

    monkeypatch.chdir(tmp_path)
    steps = Steps.__new__(Steps)
    source = phantom.read(images=4, seed=0, public=True, test_fraction=0.2)
    ref = dataset(source.cases, source.captions)
    assert prepare_questions(Study(), ref, steps) is ref
    with pytest.raises(StudyError, match=r"set synthesis\.generator=rules"):
        prepare_questions(Study(), dataset([], source.captions), steps)
