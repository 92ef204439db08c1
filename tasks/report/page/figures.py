"""What all plots share: colours, a readable name, and a figure as embedded SVG or PNG, without a file or a network."""

import html
import io
import re

from matplotlib import rc_context
from matplotlib.figure import Figure

TRAINED, REFERENCE = "#0b6e8f", "#9aa5ad"
"""Colours of trained configurations and of baselines, also distinct in grey print."""
HELD_OUT = "#d1495b"


def readable(name: str) -> str:
    """A name of a document as words."""
    return name.replace("_", " ")


def png(figure: Figure) -> bytes:
    """The figure as a PNG of moderate size, for places that do not show SVG."""
    figure.set_layout_engine("tight")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80, metadata={"Software": None})
    return drawn.getvalue()


def svg(figure: Figure, description: str) -> str:
    """The figure as an `svg` element with a description for screen readers."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.set_layout_engine("tight")
    drawn = io.StringIO()
    # Text stays text, and ids are reproducible.
    with rc_context({"svg.hashsalt": description, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids without a reference would be duplicates in a page of several plots.
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if f"#{found[1]}" in svg else "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)
