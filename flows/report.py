"""Writes a run's pages: one of the study, one for each hospital's internal use, and the model card."""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.files import write_text
from tasks.audit.control import control_sentence
from tasks.errors import StudyError
from tasks.explain.shares import mean_shares
from tasks.records import Case, FailureModes, Prediction, Saliency, Share, read_table
from tasks.records.run_document import RunDocument
from tasks.report.abstention import abstention_note, abstention_rows
from tasks.report.contributions import contribution_rows, contribution_sentence
from tasks.report.data import audited_tests, left_out_sentence, split_sentence
from tasks.report.failures import failure_rows
from tasks.report.held_back import held_back_rows, held_back_sentence
from tasks.report.intervals import group_rows, interval_rows
from tasks.report.page.maps import maps_of
from tasks.report.page.pictures import pictures
from tasks.report.page.render import (
    Answered,
    DataStatements,
    Rows,
    Section,
    detail_plots,
    hospital_page,
    model_card,
    study_page,
)
from tasks.report.personal import personal_rows, personal_sentence
from tasks.report.privacy import privacy_rows, privacy_sentence
from tasks.report.quarantine import quarantine_rows
from tasks.report.results import MEANS, hospital_rows, reliance_rows, score_rows
from tasks.report.rounds import round_rows
from tasks.report.saliency import share_rows
from tasks.report.seen import run_sentence
from tasks.report.start import start_sentence
from tasks.score.outcomes import judge
from tasks.settings import Study
from tasks.store import ROOT, here
from tasks.store.runs import check_run, open_run, paths_of

GALLERY = 300
"""Most answers on a hospital's page, so that the file, with its images, opens quickly in a browser."""


def write_pages(run: Path) -> list[Path]:
    """Write `report.html` of a run and of each of its hospitals; returns the paths, the run's first.

    Raises StudyError if there is no such run, a folder that is read is missing or has changed, or a page cannot be
    written.
    """
    study, references = open_run(run)
    for places in references["hospitals"].values():
        check_run(run, paths_of(places, ("cases", "predictions", "saliency", "failures")))
    results = _results(run)
    sections = [*_sections(results), *_brought(run)]
    written = [run / "report.html"]
    write_text(written[0], study_page(results, _rows(results), _statements(results), sections))
    for hospital, places in references["hospitals"].items():  # one page in memory: each holds images
        written.append(ROOT / "hospitals" / hospital / "report.html")
        write_text(written[-1], _hospital_page(study, results["run"], hospital, places))
    return written


def write_card(run: Path) -> Path:
    """Write `card.md` of a run.

    Raises StudyError if there is no such run, its files have changed, or the card cannot be written.
    """
    results = _results(run)
    check_run(run)
    write_text(run / "card.md", model_card(results, _rows(results), _statements(results)))
    return run / "card.md"


def _results(run: Path) -> RunDocument:
    try:
        return _filled(json.loads((run / "results.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise StudyError(
            f"Expected a finished run in {run}, found no readable results.json there: run `fed-rag run` first, "
            "or name another folder."
        ) from None


def _filled(results: RunDocument) -> RunDocument:
    """Add what runs of earlier versions lack: zeros for counts, and settings that came later with their defaults."""
    counts = ("test_closed", "test_open", "train_closed", "train_open")
    rows = results["partition"]["hospitals"]
    columns = dict.fromkeys((*rows[0], *counts, *(name for row in rows for name in row)), 0)
    partition = {**results["partition"], "hospitals": [columns | row for row in rows]}
    defaults = Study().model_dump(mode="json")
    settings = {
        name: {**defaults.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in results["settings"].items()
    }
    split = {"train": 0, "test": 0, **results["split"]}
    return {**results, "settings": settings, "partition": partition, "split": split}


def _statements(results: RunDocument) -> DataStatements:
    """The sentences on the data for pages and card."""
    split = results["split"]
    return DataStatements(
        split_sentence([split]),
        left_out_sentence(results["dataset"]),
        audited_tests(split),
        control_sentence(split.get("control")),  # a run of an earlier version has none
        seen=run_sentence(results),
        privacy=privacy_sentence(results.get("privacy")),
        start=start_sentence(results.get("start")),
    )


def _rows(results: RunDocument) -> Rows:
    """The score tables: the headline, each configuration by hospital, and withheld answers."""
    tables = {"": score_rows(results)} | {name: hospital_rows(results, name) for name in results["configurations"]}
    found = results.get("abstention")  # absent before schema 3
    return tables | ({"answers withheld": abstention_rows(found)} if found else {})


def _sections(results: RunDocument) -> Iterator[Section]:
    """The sections of the study's page below the headline: uncertainty of scores, and what answers depend on."""
    yield Section(
        "How sure the scores are",
        "95 % intervals by bootstrap over images, each with all its questions; one seed, so the chance of training is "
        "not in them.",
        {
            "Our scores": interval_rows(results),
            "By the rules of published systems, for comparison with their figures": interval_rows(
                results, published=True
            ),
        },
    )
    if personal := results.get("personal"):  # a run of an earlier version has none
        table = {"Right answers by hospital": personal_rows(personal)}
        yield Section("Personal adapters", personal_sentence(personal), table)
    if found := results.get("abstention"):
        yield Section("What withheld answers promise", abstention_note(found))
    for name in results["configurations"]:
        drawn = detail_plots(results, name)
        groups = group_rows(results["scores"], name)
        if groups[1:] or drawn["groups"]:
            table = {"Right answers": groups} if groups[1:] else {}
            yield Section(f"{name} by group", "", table, drawn["groups"])
        if drawn["calibration"]:
            error = results["calibration"][name]["ece"]
            sentence = f"Expected calibration error {error:.3f}; dashed: a model as often right as it is sure."
            yield Section("Whether confidence can be trusted", sentence, plots=drawn["calibration"])
        if relies := results["reliance"].get(name):
            table = {"The same questions, asked again with something taken away": reliance_rows(relies)}
            yield Section("Does it look?", relies["sentence"], table, drawn["reliance"])
        if failing := results.get("failures", {}).get(name):  # a run of an earlier version has none
            sentence = "Failure modes by rule (docs/saliency.md); which cases they are is on the hospitals' own pages."
            yield Section(f"How {name} fails", sentence, {"Answers that show each": failure_rows(failing)})
        if shares := results.get("saliency", {}).get(name):  # a run of an earlier version has none
            yield Section("Where answers come from", MEANS, {"By method": share_rows(shares)}, drawn["saliency"])
    if (turned_away := quarantine_rows(results["rounds"]))[1:]:
        sentence = "Updates that did not pass the door (docs/federation.md) had no part in their round's adapter."
        yield Section("Hospitals left out of rounds", sentence, {"By round": turned_away}, scores=False)
    if privacy := results.get("privacy"):  # a run of an earlier version has none
        table = {"By who adds the noise": privacy_rows(privacy)}
        yield Section("What noise hides", privacy_sentence(privacy), table, scores=False)
    if withheld := results.get("withheld"):  # a run of an earlier version has none
        rows = held_back_rows(withheld)
        table = {"By hospital": rows} if rows[1:] else {}
        yield Section("What hospitals withhold", held_back_sentence(withheld), table, scores=False)
    lost = "The mean of LoRA's factors is not the mean of their products (docs/federation.md)."
    yield Section(
        "Rounds", lost, {"Losses, and the share of each update that is lost": round_rows(results)}, scores=False
    )


def _brought(run: Path) -> Iterator[Section]:
    """What each hospital brought, where `fed-rag contributions` has measured it."""
    path = run / "contributions.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        table = {"Lower held-out loss": contribution_rows(found)}
        yield Section("What each hospital brought", contribution_sentence(found), table, scores=False)


def _hospital_page(study: Study, run: str, hospital: str, places: Mapping[str, Any]) -> str:
    rows = [
        row
        for place in places["predictions"]
        for row in read_table(here(place) / "predictions.parquet", Prediction)
        if row.configuration == study.configuration
    ]
    cases = {case.id: case for case in read_table(here(places["cases"]) / "cases.parquet", Case)}
    chosen = sorted(random.Random(study.seed).sample(range(len(rows)), min(GALLERY, len(rows))))
    maps, shares = _explained(places)
    failures = _failures(places)
    first = [row for row in rows if row.case_id in maps]
    gallery = first + [rows[place] for place in chosen if rows[place].case_id not in maps]
    answers = [
        Answered(
            row,
            judge(row).correct,
            cases[row.case_id],
            _context(row, cases),
            tuple(maps_of(maps.get(row.case_id, []))),
            share_rows(mean_shares(shares[row.case_id])) if row.case_id in shares else (),
            failures.get(row.case_id),
        )
        for row in gallery
    ]
    wanted = {case.image_id for each in answers for case in (each.case, *each.context)}
    images = pictures(here(places["cases"]) / "images.parquet", wanted)
    return hospital_page(run, hospital, answers, len(rows), images)


def _explained(places: Mapping[str, Any]) -> tuple[dict[str, list[Saliency]], dict[str, list[Share]]]:
    """Maps and shares, each by case; empty if the run explained no answer."""
    maps: dict[str, list[Saliency]] = {}
    shares: dict[str, list[Share]] = {}
    if "saliency" in places:
        folder = here(places["saliency"])
        for row in read_table(folder / "saliency.parquet", Saliency):
            maps.setdefault(row.case_id, []).append(row)
        for share in read_table(folder / "shares.parquet", Share):
            shares.setdefault(share.case_id, []).append(share)
    return maps, shares


def _failures(places: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The failure modes of each examined answer, by case."""
    if "failures" not in places:
        return {}
    rows = read_table(here(places["failures"]) / "failures.parquet", FailureModes)
    return {row.case_id: row.modes for row in rows}


def _context(row: Prediction, cases: Mapping[str, Case]) -> tuple[Case, ...]:
    return tuple(cases[neighbour] for neighbour in row.neighbours)
