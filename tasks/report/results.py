"""The results of a study: one JSON document, and the Markdown that the dashboard shows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.cases.small_groups import WITHHELD
from tasks.records.text_table import markdown_table
from tasks.report.abstention import abstention_note, abstention_rows
from tasks.report.data import left_out_sentence, split_sentence
from tasks.report.failures import failure_rows
from tasks.report.held_back import held_back_rows, held_back_sentence
from tasks.report.intervals import group_rows, interval_rows
from tasks.report.saliency import share_rows
from tasks.score.metrics import pooled_metrics
from tasks.score.overlap import bleu_signatures
from tasks.score.score import Tally, pool, scores, summarise
from tasks.text.wording import counted

SCHEMA_VERSION = 5
BLIND = "text_only"
"""The control of multiple choice: the trained adapter, asked without image and retrieved cases."""
BASELINES = ("base", BLIND, "majority", "question_only", "copy_nearest")
"""What a configuration stands beside: the untrained base on the same prompts, the control, three that need no model."""


def score_table(shared: Sequence[Mapping[str, Any]], known: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Scores by configuration, pooled and for each hospital, from what the hospitals shared (`scores.json`).

    A hospital that was asked nothing is among them, with no question and no score; so are the `known` configurations.
    A hospital's also say under `withheld` of which questions (`closed`, `open`, `choice`) it tells nothing.
    """
    configurations = sorted({*known, *(name for each in shared for name in each["tallies"])})
    nothing = summarise([]).to_json()
    few = {each["hospital"]: each.get("withheld", {}).get("questions", []) for each in shared}
    table = {}
    for name in configurations:
        tallies = {each["hospital"]: Tally.from_json(each["tallies"].get(name, nothing)) for each in shared}
        hospitals = {hospital: scores(tally) | {"withheld": few[hospital]} for hospital, tally in tallies.items()}
        table[name] = scores(pool(tallies.values())) | {"hospitals": hospitals}
    return table


def assemble(
    shared: Sequence[Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The document `results.json`, as docs/pipeline.md lays it out.

    Args:
        shared: each hospital's `scores.json`.
        rounds: one row a round, in order.
        about: what is known of the run itself: `run`, `trained` (the names of what was), `model`, `settings`,
            `dataset`, `partition`, `split`, `timings_s`, `peak_memory_bytes`, `details`, `withheld`; `reliance`,
            `failures` and `saliency` where they were measured, `abstention` where answers are withheld.
    """
    table = score_table(shared, about.get("trained", ()))
    return {
        "schema_version": SCHEMA_VERSION,
        "run": about["run"],
        "configurations": {name: row for name, row in table.items() if name not in BASELINES},
        "baselines": {name: table[name] for name in BASELINES if name in table},
        **about["details"],
        "abstention": about.get("abstention"),
        "rounds": list(rounds),
        "reliance": about.get("reliance", {}),
        "failures": about.get("failures", {}),
        "saliency": about.get("saliency", {}),
        "withheld": about.get("withheld"),
        "dataset": about["dataset"],
        "partition": about["partition"],
        "split": about["split"],
        "definitions": {"bleu": bleu_signatures(), "test_cases": "every test case once, at its own hospital"},
        "model": about["model"],
        "settings": about["settings"],
        "timings_s": about["timings_s"],
        "peak_memory_bytes": about["peak_memory_bytes"],
    }


MEANS = "Mean shares of the prompt's parts in a few answers of each hospital, drawn at random; by method."
"""What the shares are of."""


class Column(NamedTuple):
    """A column of the headline table: where its figures stand in `results.json`, and how they are written."""

    kind: str
    field: str
    heading: str
    text: Callable[[float], str] = "{:.3f}".format


def _columns() -> list[Column]:
    """Those of closed questions, made of labels; of multiple choice among them; and the metrics of open questions."""
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


def score_rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The headline table as text: its headings, then one row a configuration or baseline.

    Kinds of question that were not asked have no columns.
    """
    return _rows([*results["configurations"].items(), *results["baselines"].items()])


def hospital_rows(results: Mapping[str, Any], configuration: str) -> list[tuple[str, ...]]:
    """A configuration's scores by hospital, as `score_rows` gives them."""
    return _rows(results["configurations"][configuration]["hospitals"].items())


def reliance_rows(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A configuration's entry of `results["reliance"]` as text: headings, then a row an alteration of the prompt."""
    rows = [
        (name.replace("_", " "), *(_cell(row[field]) for field in ("closed", "open", "score", "kept")), row["meaning"])
        for name, row in told["alterations"].items()
    ]
    asked = f"of {counted(told['n'], 'test cases')}"
    return [(asked, "closed accuracy", "open exact", "all", "kept", "what is changed"), *rows]


def _rows(named: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, ...]]:
    named = list(named)
    columns = [column for column in _columns() if any(row[column.kind]["n"] for _, row in named)]
    rows = [(name.replace("_", " "), *(_score(row, column) for column in columns)) for name, row in named]
    return [("", *(column.heading for column in columns)), *rows]


def _score(row: Mapping[str, Any], column: Column) -> str:
    if column.kind in row.get("withheld", ()):
        return WITHHELD
    return _cell(row[column.kind].get(column.field), column.text)  # a run from before a metric was added has none


def _cell(value: float | None, text: Callable[[float], str] = "{:.3f}".format) -> str:
    if value is None:
        return "-"
    return text(value) if isinstance(value, float) else str(value)


def markdown(results: Mapping[str, Any]) -> str:
    """The results as Markdown: headline scores, hospitals, rounds."""
    parts = [
        f"# Results of {results['run']}",
        f"Split: {split_sentence([results['split']])}.",
        f"Data: {left_out_sentence(results['dataset'])}.",
        markdown_table(score_rows(results)),
        "## With 95 % intervals",
        "By bootstrap over images, each with all its questions; one seed, so the chance of training is not in them.",
        markdown_table(interval_rows(results)),
        "## By the rules of published systems",
        markdown_table(interval_rows(results, published=True)),
    ]
    for name in results["configurations"]:
        parts += [f"## {name} by hospital", markdown_table(hospital_rows(results, name))]
        groups = group_rows(results["scores"], name)
        parts += [f"## {name} by group", markdown_table(groups)] if groups[1:] else []
    if results["abstention"]:
        parts += [
            "## Answers withheld where the model is unsure",
            abstention_note(results["abstention"]),
            markdown_table(abstention_rows(results["abstention"])),
        ]
    for name, told in results["reliance"].items():
        parts += [f"## What {name} relies on", told["sentence"], markdown_table(reliance_rows(told))]
    for name, told in results["failures"].items():
        parts += [f"## How {name} fails", markdown_table(failure_rows(told))]
    for name, told in results["saliency"].items():
        parts += [f"## Where answers of {name} come from", MEANS, markdown_table(share_rows(told))]
    if told := results["withheld"]:
        parts += ["## Withheld", held_back_sentence(told)]
        parts += [markdown_table(held_back_rows(told))] if told["hospitals"] else []
    losses = [
        (str(row["round"]), f"{row['train_loss']:.4f}", "-" if row["eval_loss"] is None else f"{row['eval_loss']:.4f}")
        for row in results["rounds"]
    ]
    parts += ["## Rounds", markdown_table([("round", "training loss", "held-out loss"), *losses])]
    return "\n\n".join(parts) + "\n"
