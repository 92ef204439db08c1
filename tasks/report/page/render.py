"""The pages of a run: one of the study, without anything about a patient, and a private one for each hospital.

A page is one HTML file that makes no network request: styles, plots and pictures are embedded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tasks.records import Case, Prediction
from tasks.records.run_document import RunDocument
from tasks.report.page.loss_plots import loss_plot
from tasks.report.page.maps import Map
from tasks.report.page.pictures import Picture
from tasks.report.page.plots import group_plot, partition_plot, reliability_plot, reliance_plot, score_plot, total
from tasks.report.page.share_plots import share_plot
from tasks.text.wording import counted

Rows = Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Answered:
    """One answer of the gallery, with its case, context and explanation."""

    prediction: Prediction
    correct: bool
    case: Case
    context: tuple[Case, ...]
    """The context: the retrieved cases, nearest first."""
    maps: tuple[Map, ...] = ()
    """Saliency maps; empty where the answer was not explained."""
    shares: Sequence[Sequence[str]] = ()
    """Shares of the prompt's parts by method, as text, headings first."""
    failures: tuple[str, ...] | None = None
    """Names of the failure modes found in the answer; None where it was not examined."""


@dataclass(frozen=True)
class Section:
    """A part of a study's page: a heading, a sentence, tables with their captions, and plots."""

    title: str
    sentence: str = ""
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """Rows of text by caption, headings first."""
    plots: Sequence[str] = ()
    scores: bool = True
    """Whether the tables are of scores, and tell how many test images the base was trained on."""


@dataclass(frozen=True)
class DataStatements:
    """Statements about a run's data."""

    split: str
    """What the test split shares with training."""
    left_out: str
    """Which published rows are left out, and why."""
    audited: int
    """Number of test cases in the audit, before any was moved or left out."""
    control: str
    """What the negative control says of the near-duplicates."""
    seen: str = ""
    """How many test images the base was trained on; empty if none, or if it has no record."""
    privacy: str = ""
    """What is promised of the adapters."""
    start: str = ""
    """What the first round started from."""


def detail_plots(results: RunDocument, configuration: str) -> dict[str, list[str]]:
    """The plots of a configuration's `groups`, `calibration`, `reliance` and `saliency`; empty lists where there is no
    data."""
    groups = [group_plot(results["scores"], configuration, group) for group in ("modality", "organ", "topic")]
    sure, relies = results["calibration"].get(configuration), results["reliance"].get(configuration)
    explained = results.get("saliency", {}).get(configuration)  # a run of an earlier version has none
    return {
        "groups": [plot for plot in groups if plot],
        "calibration": [reliability_plot(configuration, sure)] if sure else [],
        "reliance": [reliance_plot(configuration, relies)] if relies else [],
        "saliency": [share_plot(configuration, explained)] if explained else [],
    }


def study_page(results: RunDocument, rows: Rows, data: DataStatements, sections: Sequence[Section] = ()) -> str:
    """The page of a study.

    Args:
        results: `results.json`.
        rows: the score tables as text, headings first: `""` is the headline, others are configurations by hospital.
        data: statements about the run's data.
        sections: further parts, shown after the scores.
    """
    plots = {
        "scores": score_plot(results),
        "losses": loss_plot(results["rounds"]),
        "partition": partition_plot(results["partition"]["hospitals"]),
    }
    shares = results["split"]["published_split_shares"]
    return fill(
        "study.html",
        results=results,
        scores=rows[""],
        by_hospital={name: table for name, table in rows.items() if name},
        data=data,
        sections=[(each, [Markup(plot) for plot in each.plots]) for each in sections],
        plots={name: Markup(plot) for name, plot in plots.items()},  # SVG from our code, its texts escaped
        leaks=[(leak.replace("_", " "), *_share(count, data.audited)) for leak, count in shares.items()],
        seconds=[(stage, f"{seconds:.1f}") for stage, seconds in results["timings_s"].items()],
        settings=yaml.safe_dump(results["settings"], sort_keys=False),
        min_cell=results["settings"].get("evaluation", {}).get("min_cell", 1),  # a run of an earlier version has none
    )


def hospital_page(
    run: str, hospital: str, answers: Sequence[Answered], total: int, images: Mapping[str, Picture]
) -> str:
    """A hospital's private page: its answers with their images and context.

    Args:
        run: name of the run.
        hospital: whose page it is.
        answers: of the gallery, in order.
        total: number of all answers, in the gallery or not.
        images: by image id, all images of the answers.
    """
    return fill("hospital.html", run=run, hospital=hospital, answers=answers, total=total, images=images)


def _share(count: int | str | None, of: int) -> tuple[str, str]:
    """A count and its rate as text; a text says why there is no count, None that the dataset does not state it."""
    if not isinstance(count, int):
        return count or "not stated", "-"
    return str(count), f"{count / of:.3f}" if of else "-"


def model_card(results: RunDocument, rows: Rows, data: DataStatements) -> str:
    """A model card in Markdown, after Mitchell et al., "Model Cards for Model Reporting" (2019).

    The arguments are those of `study_page`.
    """
    return fill("card.md", results=results, scores=rows[""], data=data, total=total)


def fill(template: str, **values: Any) -> str:
    """Fill a template. A missing value raises an error, and all text is escaped in HTML."""
    environment = Environment(
        loader=PackageLoader("tasks.report.page"),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    return environment.get_template(template).render(values)
