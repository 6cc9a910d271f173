"""Plots as files, for print: PNG, SVG or PDF, one column wide. Equal plots give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from duckling_data.base.plotting import default_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (3.4, 2.6)
"""Inches: the width of one column of a page with two."""
STYLE: Mapping[str, Any] = {
    "font.size": 7.5, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "lines.linewidth": 1.2, "lines.markersize": 4, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "savefig.dpi": 300,
    "pdf.fonttype": 42, "svg.fonttype": "path",  # TrueType in a PDF, outlines in an SVG: the same on every machine
    "svg.hashsalt": "duckling",
}  # fmt: skip
"""Matplotlib's settings for print."""
METADATA: Mapping[str, Mapping[str, None]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None, "Format": None, "Type": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""What each format would say of the clock and of the library's version."""


@default_settings(STYLE)
def picture(draw: Callable[[Axes], None], format: str = "png", size: tuple[float, float] = SIZE) -> bytes:
    """Return the file of what `draw` draws on the axes of a figure of `size` (inches): png, svg or pdf."""
    figure, axes = figure_of(size)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata=dict(METADATA[format]))
    return buffer.getvalue()


def figure_of(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return a figure of `size` (inches) with axes; no window system is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()
