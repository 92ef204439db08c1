"""Saliency maps laid over their images, with the shares of a prompt's parts, as one PNG."""

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tasks.records import Image, Saliency
from tasks.records.pixels import to_rgb
from tasks.report.page.maps import COLOURS, tinted
from tasks.report.page.share_plots import PARTS, share_bar

FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Micro Hei", "SimHei", "PingFang SC"]
"""Fonts in order of preference. The first has no Chinese; without one of the others, Chinese characters are boxes."""


def sheet(
    question: str, answer: str, panels: Sequence[tuple[Image, Saliency, str]], shares: Mapping[str, float]
) -> bytes:
    """One method's maps of all images of a prompt, each over its image in grey, and a bar of shares below.

    All maps share one scale, so that an image with little weight is visibly pale.

    Args:
        question: shown on top.
        answer: shown below the question.
        panels: image, map and caption, the question's image first.
        shares: of the prompt's parts, as in `Explanation.share`.
    """
    width = max(7.5, 3.0 * len(panels))
    figure = Figure(figsize=(width, 5.4), dpi=110, layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[4.2, 1.2]).ravel()
    head = f"{_folded(f'Question: {question}', width)}\n{_folded(f'Answer: {answer}', width)}"
    top.suptitle(head, fontsize=11, x=0.02, ha="left", parse_math=False)
    row = top.subplots(1, len(panels), squeeze=False)[0]
    largest = max(max(saliency.weights) for _, saliency, _ in panels)
    for axes, (image, saliency, caption) in zip(row, panels, strict=True):
        _lay_over(axes, image, saliency, largest)
        axes.set_title(_folded(caption, 3.4), fontsize=9, parse_math=False)
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    bar = top.colorbar(scale, ax=list(row), location="right", shrink=0.7, pad=0.01)
    bar.set_label("weight, of the largest", fontsize=9)
    _share_bar(bottom.subplots(), shares)
    drawn = io.BytesIO()
    with rc_context({"font.family": FONTS}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        warnings.filterwarnings("ignore", "findfont")
        figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()


def _lay_over(axes: Axes, image: Image, saliency: Saliency, largest: float) -> None:
    axes.imshow(to_rgb(image.data).convert("L"), cmap="gray", vmin=0, vmax=255)
    left, upper, right, lower = saliency.window
    extent = (left - 0.5, right - 0.5, lower - 0.5, upper - 0.5)
    axes.imshow(tinted(saliency, largest), extent=extent, interpolation="nearest")
    axes.set_xlim(-0.5, image.width - 0.5)
    axes.set_ylim(image.height - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(_weighed(saliency), fontsize=9)


def _weighed(saliency: Saliency) -> str:
    """The image's total weight, in words."""
    if saliency.method == "occlusion":
        return f"covered, the answer loses\nup to {max(saliency.weights):.2f} nats"
    return f"{sum(saliency.weights):.1%} of the prompt's weight"


def _share_bar(axes: Axes, shares: Mapping[str, float]) -> None:
    share_bar(axes, 0, shares)
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    axes.set_title("Share of what the answer comes from", fontsize=10, loc="left")
    names = [f"{PARTS[part][0]} {share:.1%}" for part, share in shares.items()]
    axes.legend(
        axes.containers,
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(shares),
        fontsize=9,
        frameon=False,
    )


def _folded(text: str, inches: float) -> str:
    """Wrap a text to a width in inches."""
    return textwrap.fill(" ".join(text.split()), max(20, int(inches * 11)), max_lines=4, placeholder=" ...")
