"""Plots of where answers come from: the shares of a prompt's parts."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.records.run_document import HospitalShares
from tasks.report.page.figures import svg

PARTS = {
    "query_image": ("question's image", "#D55E00"),
    "retrieved_images": ("retrieved images", "#E69F00"),
    "retrieved_text": ("retrieved text", "#56B4E9"),
    "question": ("question", "#0072B2"),
    "format": ("format", "#B4B4B4"),
}
"""Label and colour of each part of the prompt (colours after Okabe and Ito, distinct for the colour-blind)."""


def share_plot(name: str, saliency: HospitalShares) -> str:
    """Mean shares (0 to 1) of the prompt's parts in the explained answers, a bar for each method."""
    description = "; ".join(
        f"{method} {', '.join(f'{PARTS[part][0]} {share:.3f}' for part, share in shares.items())}"
        for method, shares in saliency["methods"].items()
    )
    return svg(share_figure(saliency), f"Where answers of {name} come from: {description}")


def share_figure(saliency: HospitalShares) -> Figure:
    """The figure of `share_plot`."""
    rows = list(saliency["methods"].items())
    figure = Figure(figsize=(8, 1.2 + 0.36 * len(rows)))
    axes = figure.subplots()
    for place, (_, shares) in enumerate(rows):
        share_bar(axes, place, shares)
    axes.set_yticks(range(len(rows)), [method for method, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_title(f"Where answers come from ({saliency['n']} explained)", fontsize=10)
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    key = axes.legend(list(handles.values()), list(handles), ncols=len(PARTS), fontsize=8, frameon=False)
    key.set_loc("upper center")
    key.set_bbox_to_anchor((0.5, -0.18), axes.transAxes)
    return figure


def share_bar(axes: Axes, place: int, shares: Mapping[str, float]) -> None:
    """Draw one bar of the shares of a prompt's parts; larger shares show their value."""
    start = 0.0
    for part, share in shares.items():
        name, colour = PARTS[part]
        axes.barh([place], [share], left=start, color=colour, edgecolor="white", height=0.65, label=name)
        if share >= 0.06:
            text = axes.text(start + share / 2, place, f"{share:.0%}", color="white", weight="bold", fontsize=9)
            text.set(ha="center", va="center")
        start += share
