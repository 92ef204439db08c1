"""The plots of a run as Markdown for the dashboard, with the pictures embedded in the text."""

import base64

from tasks.records.run_document import RunDocument
from tasks.report.page.figures import png
from tasks.report.page.plots import score_figure
from tasks.report.page.share_plots import share_figure


def inline_plots(results: RunDocument, losses: bytes) -> str:
    """Plots of scores, losses and where answers come from, as Markdown images with embedded data.

    They are PNG, since the dashboard does not show embedded SVG. `losses` is the run's `losses.png`.
    """
    pictures = {"Scores of all test cases; a dot is one hospital": png(score_figure(results)), "Losses": losses}
    for name, shares in results["saliency"].items():
        pictures[f"Where answers of {name} come from"] = png(share_figure(shares))
    return "\n\n".join(
        f"![{title}](data:image/png;base64,{base64.b64encode(data).decode()})" for title, data in pictures.items()
    )
