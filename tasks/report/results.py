"""The results of a study: one JSON document, and the Markdown that the dashboard shows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tasks.cases.small_groups import WITHHELD
from tasks.records.run_document import (
    Abstention,
    ConfigurationScores,
    Details,
    Failures,
    Personal,
    PrivacyOfRun,
    QuestionKind,
    Reliance,
    RunDocument,
    Scores,
    SeenOfRun,
    SharesOfParts,
    StartOfRun,
    WithheldOfRun,
)
from tasks.records.shared_documents import ScoresDocument
from tasks.records.text_table import markdown_table
from tasks.report.abstention import abstention_note, abstention_rows
from tasks.report.data import left_out_sentence, split_sentence
from tasks.report.failures import failure_rows
from tasks.report.held_back import held_back_rows, held_back_sentence
from tasks.report.intervals import group_rows, interval_rows
from tasks.report.personal import personal_rows, personal_sentence
from tasks.report.privacy import privacy_rows, privacy_sentence
from tasks.report.rounds import round_rows
from tasks.report.saliency import share_rows
from tasks.report.seen import run_sentence
from tasks.report.start import start_sentence
from tasks.score.metrics import pooled_metrics
from tasks.score.overlap import bleu_signatures
from tasks.score.score import Tally, pool, scores, summarise
from tasks.text.wording import counted

SCHEMA_VERSION = 7
TEXT_ONLY = "text_only"
"""The multiple-choice baseline without context: the trained adapter, without the image and the retrieved cases."""
BASELINES = ("base", TEXT_ONLY, "majority", "question_only", "image_and_question", "copy_nearest")
"""Baselines: the untrained base on the same prompts, the text-only adapter, and four that need no language model."""


def score_table(shared: Sequence[ScoresDocument], known: Sequence[str] = ()) -> dict[str, ConfigurationScores]:
    """Scores by configuration, pooled and for each hospital, from the hospitals' `scores.json`.

    A hospital without questions is included, with n = 0 and no score; so are the `known` configurations. A hospital's
    entry lists under `withheld` the kinds of question (`closed`, `open`, `choice`) that it withholds.
    """
    configurations = sorted({*known, *(name for each in shared for name in each["tallies"])})
    nothing = summarise([]).to_json()
    few = {each["hospital"]: each["withheld"]["questions"] for each in shared}
    table: dict[str, ConfigurationScores] = {}
    for name in configurations:
        tallies = {each["hospital"]: Tally.from_json(each["tallies"].get(name, nothing)) for each in shared}
        hospitals: dict[str, Scores] = {
            hospital: {**scores(tally), "withheld": few[hospital]} for hospital, tally in tallies.items()
        }
        table[name] = {**scores(pool(tallies.values())), "hospitals": hospitals}
    return table


@dataclass(frozen=True)
class Measured:
    """The results of a run beside its scores; the fields are those of `results.json`."""

    details: Details
    abstention: Abstention | None = None
    """None where no answers are withheld."""
    reliance: Mapping[str, Reliance] = field(default_factory=dict)
    """Empty where it was not measured; so are the two below."""
    failures: Mapping[str, Failures] = field(default_factory=dict)
    saliency: Mapping[str, SharesOfParts] = field(default_factory=dict)
    personal: Personal | None = None
    """None where hospitals have no personal adapters."""
    withheld: WithheldOfRun | None = None
    seen: SeenOfRun | None = None
    """None where the base has no record of what it was trained on."""
    privacy: PrivacyOfRun | None = None
    """None without differential privacy."""


@dataclass(frozen=True)
class About:
    """Facts about the run itself; all fields but `trained` are those of `results.json`."""

    run: str
    trained: Sequence[str]
    """Names of the trained configurations."""
    dataset: Mapping[str, Any]
    partition: Mapping[str, Any]
    split: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    timings_s: Mapping[str, float]
    peak_memory_bytes: int
    start: StartOfRun | None = None
    """None where the first round started from a fresh adapter."""


def assemble(
    shared: Sequence[ScoresDocument], rounds: Sequence[Mapping[str, Any]], measured: Measured, about: About
) -> RunDocument:
    """Assemble `results.json`, whose layout is in docs/pipeline.md.

    Args:
        shared: each hospital's `scores.json`.
        rounds: one row for each round, in order.
        measured: the results beside the scores.
        about: facts about the run itself.
    """
    table = score_table(shared, about.trained)
    return {
        "schema_version": SCHEMA_VERSION,
        "run": about.run,
        "configurations": {name: row for name, row in table.items() if name not in BASELINES},
        "baselines": {name: table[name] for name in BASELINES if name in table},
        **measured.details,
        "abstention": measured.abstention,
        "rounds": list(rounds),
        "reliance": measured.reliance,
        "failures": measured.failures,
        "saliency": measured.saliency,
        "personal": measured.personal,
        "withheld": measured.withheld,
        "seen": measured.seen,
        "privacy": measured.privacy,
        "dataset": about.dataset,
        "partition": about.partition,
        "split": about.split,
        "definitions": {"bleu": bleu_signatures(), "test_cases": "every test case once, at its own hospital"},
        "model": about.model,
        "start": about.start,
        "settings": about.settings,
        "timings_s": about.timings_s,
        "peak_memory_bytes": about.peak_memory_bytes,
    }


MEANS = "Mean shares of the prompt's parts in a few answers of each hospital, drawn at random; by method."
"""Caption of the tables of shares."""


class Column(NamedTuple):
    """A column of the headline table: where its figures are in `results.json`, and their format."""

    kind: QuestionKind
    field: str
    heading: str
    text: Callable[[float], str] = "{:.3f}".format


def _columns() -> list[Column]:
    """The columns of closed questions, of the multiple-choice ones among them, and of the metrics of open questions."""
    return [
        Column("closed", "n", "closed n"),
        Column("closed", "accuracy", "accuracy"),
        Column("closed", "f1_macro", "F1"),
        Column("choice", "n", "choice n"),
        Column("choice", "accuracy", "by option"),
        Column("open", "n", "open n"),
        *(
            Column("open", metric.field, metric.short_heading, metric.text)
            for metric in pooled_metrics()
            if metric.in_headline
        ),
    ]


def score_rows(results: RunDocument) -> list[tuple[str, ...]]:
    """The headline table as text: its headings, then one row for each configuration and baseline.

    Kinds without questions have no columns.
    """
    return _rows([*results["configurations"].items(), *results["baselines"].items()])


def hospital_rows(results: RunDocument, configuration: str) -> list[tuple[str, ...]]:
    """A configuration's scores by hospital, in the form of `score_rows`."""
    return _rows(results["configurations"][configuration]["hospitals"].items())


def reliance_rows(reliance: Reliance) -> list[tuple[str, ...]]:
    """A configuration's entry of `results["reliance"]` as text: headings, then a row for each perturbation of the
    prompt."""
    rows = [
        (
            name.replace("_", " "),
            *map(_cell, (row["closed"], row["open"], row["score"], row["kept"])),
            row["meaning"],
        )
        for name, row in reliance["alterations"].items()
    ]
    heading = f"of {counted(reliance['n'], 'test cases')}"
    return [(heading, "closed accuracy", "open exact", "all", "kept", "what is changed"), *rows]


def _rows(named: Iterable[tuple[str, Scores]]) -> list[tuple[str, ...]]:
    named = list(named)
    columns = [column for column in _columns() if any(row[column.kind]["n"] for _, row in named)]
    rows = [(name.replace("_", " "), *(_score(row, column) for column in columns)) for name, row in named]
    return [("", *(column.heading for column in columns)), *rows]


def _score(row: Scores, column: Column) -> str:
    if column.kind in row.get("withheld", ()):
        return WITHHELD
    return _cell(row[column.kind].get(column.field), column.text)  # runs from before the metric was added lack it


def _cell(value: float | None, text: Callable[[float], str] = "{:.3f}".format) -> str:
    if value is None:
        return "-"
    return text(value) if isinstance(value, float) else str(value)


def markdown(results: RunDocument) -> str:
    """The results as Markdown: headline scores, details where they were measured, hospitals, rounds."""
    seen = run_sentence(results)

    def table(rows: Sequence[Sequence[str]]) -> str:
        """A table of scores, with what stands beside each of them."""
        return "\n\n".join([markdown_table(rows), *([seen] if seen else [])])

    parts = [
        f"# Results of {results['run']}",
        f"Split: {split_sentence([results['split']])}.",
        f"Data: {left_out_sentence(results['dataset'])}.",
        start_sentence(results.get("start")),  # a run of an earlier version has none
        table(score_rows(results)),
        "## With 95 % intervals",
        "By bootstrap over images, each with all its questions; one seed, so the chance of training is not in them.",
        table(interval_rows(results)),
        "## By the rules of published systems",
        table(interval_rows(results, published=True)),
    ]
    for name in results["configurations"]:
        parts += [f"## {name} by hospital", table(hospital_rows(results, name))]
        groups = group_rows(results["scores"], name)
        parts += [f"## {name} by group", table(groups)] if groups[1:] else []
    if personal := results["personal"]:
        parts += ["## Personal adapters", personal_sentence(personal), table(personal_rows(personal))]
    if results["abstention"]:
        parts += [
            "## Answers withheld where the model is unsure",
            abstention_note(results["abstention"]),
            table(abstention_rows(results["abstention"])),
        ]
    for name, reliance in results["reliance"].items():
        parts += [f"## What {name} relies on", reliance["sentence"], table(reliance_rows(reliance))]
    for name, failing in results["failures"].items():
        parts += [f"## How {name} fails", table(failure_rows(failing))]
    for name, shares in results["saliency"].items():
        parts += [f"## Where answers of {name} come from", MEANS, table(share_rows(shares))]
    if held_back := results["withheld"]:
        parts += ["## Withheld", held_back_sentence(held_back)]
        parts += [markdown_table(held_back_rows(held_back))] if held_back["hospitals"] else []
    if privacy := results.get("privacy"):  # a run of an earlier version has none
        parts += ["## Privacy", privacy_sentence(privacy), markdown_table(privacy_rows(privacy))]
    parts += ["## Rounds", markdown_table(round_rows(results))]
    return "\n\n".join(parts) + "\n"
