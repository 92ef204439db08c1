"""The pages of a run: one of the study, without anything of a patient, and one for each hospital's own eyes.

A page is one HTML file that asks the network for nothing: styles, plots and pictures are in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tasks.records import Case, Prediction
from tasks.records.run_document import RunDocument
from tasks.report.page.maps import Map
from tasks.report.page.pictures import Picture
from tasks.report.page.plots import (
    group_plot,
    loss_plot,
    partition_plot,
    reliability_plot,
    reliance_plot,
    score_plot,
    share_plot,
    total,
)
from tasks.text.wording import counted

Rows = Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Answered:
    """One answer of the gallery, and what it was given with."""

    prediction: Prediction
    correct: bool
    case: Case
    shown: tuple[Case, ...]
    """The retrieved cases, nearest first."""
    maps: tuple[Map, ...] = ()
    """Where the answer comes from, where that was explained."""
    shares: Sequence[Sequence[str]] = ()
    """Of the prompt's parts by method, as text, headings first."""
    failures: tuple[str, ...] | None = None
    """Names of the failure modes that it shows; None where it was not examined."""


@dataclass(frozen=True)
class Section:
    """A part of a study's page: a heading, what it says in a sentence, tables with their captions, plots."""

    title: str
    sentence: str = ""
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """Rows as text by caption, headings first."""
    plots: Sequence[str] = ()


@dataclass(frozen=True)
class Told:
    """What is said of a run's data."""

    split: str
    """What the test split shares with training."""
    left_out: str
    """Which published rows are not in it, and why."""
    audited: int
    """Test cases that the audit counted among: before any was moved or left out."""


def detail_plots(results: RunDocument, configuration: str) -> dict[str, list[str]]:
    """The plots of a configuration's `groups`, `calibration`, `reliance` and `saliency`, as far as the run has them."""
    groups = [group_plot(results["scores"], configuration, group) for group in ("modality", "organ", "topic")]
    sure, relies = results["calibration"].get(configuration), results["reliance"].get(configuration)
    explained = results.get("saliency", {}).get(configuration)  # a run of an earlier version has none
    return {
        "groups": [plot for plot in groups if plot],
        "calibration": [reliability_plot(configuration, sure)] if sure else [],
        "reliance": [reliance_plot(configuration, relies)] if relies else [],
        "saliency": [share_plot(configuration, explained)] if explained else [],
    }


def study_page(results: RunDocument, rows: Rows, told: Told, sections: Sequence[Section] = ()) -> str:
    """The page of a study.

    Args:
        results: `results.json`.
        rows: the score tables as text, headings first: `""` is the headline, others are configurations by hospital.
        told: what is said of its data.
        sections: further parts, which stand behind the scores.
    """
    shown = {
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
        told=told,
        sections=[(each, [Markup(plot) for plot in each.plots]) for each in sections],
        plots={name: Markup(plot) for name, plot in shown.items()},  # our own SVG, its texts escaped
        leaks=[(leak.replace("_", " "), *_share(count, told.audited)) for leak, count in shares.items()],
        seconds=[(stage, f"{seconds:.1f}") for stage, seconds in results["timings_s"].items()],
        settings=yaml.safe_dump(results["settings"], sort_keys=False),
        min_cell=results["settings"].get("evaluation", {}).get("min_cell", 1),  # a run of an earlier version has none
    )


def hospital_page(
    run: str, hospital: str, answers: Sequence[Answered], total: int, images: Mapping[str, Picture]
) -> str:
    """The page for one hospital's own eyes: its answers with the images and the retrieved cases.

    Args:
        run: its name.
        hospital: whose page it is.
        answers: those of the gallery, in its order.
        total: how many answers there are, shown here or not.
        images: by image id, all that the answers show.
    """
    return fill("hospital.html", run=run, hospital=hospital, answers=answers, total=total, images=images)


def _share(count: int | str | None, of: int) -> tuple[str, str]:
    """A count and its rate as text; a text says why there is none, None that the dataset does not state it."""
    if not isinstance(count, int):
        return count or "not stated", "-"
    return str(count), f"{count / of:.3f}" if of else "-"


def model_card(results: RunDocument, rows: Rows, told: Told) -> str:
    """A model card in Markdown, after Mitchell et al., "Model Cards for Model Reporting" (2019).

    The arguments are those of `study_page`.
    """
    return fill("card.md", results=results, scores=rows[""], told=told, total=total)


def fill(template: str, **values: Any) -> str:
    """A template with its values; what is missing is an error, and in HTML every text is escaped."""
    environment = Environment(
        loader=PackageLoader("tasks.report.page"),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    return environment.get_template(template).render(values)
