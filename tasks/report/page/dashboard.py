"""The plots of a run as Markdown that shows them by itself, for the dashboard: pictures stand in the text."""

import base64

from tasks.records.run_document import RunDocument
from tasks.report.page.plots import png, score_figure, share_figure


def inline_plots(results: RunDocument, losses: bytes) -> str:
    """Scores, losses and where answers come from, as Markdown images whose addresses hold them.

    They are PNG: the dashboard shows no address of SVG. `losses` is the run's `losses.png`.
    """
    pictures = {"Scores of all test cases; a dot is one hospital": png(score_figure(results)), "Losses": losses}
    for name, told in results["saliency"].items():
        pictures[f"Where answers of {name} come from"] = png(share_figure(told))
    return "\n\n".join(
        f"![{title}](data:image/png;base64,{base64.b64encode(data).decode()})" for title, data in pictures.items()
    )
