"""What the loss plots of a run, of runs side by side, and of a sweep have in common. No clock or version in a PNG."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours that the colour-blind can tell apart (Okabe and Ito, 2008), the yellow left out: it is faint on white."""


def new_axes(width: float, height: float) -> tuple[Any, Any]:
    """Return a Matplotlib figure of so many inches and its axes; no window system is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def draw_ignorance(axes: Any, vocab_size: int, fontsize: float = 9) -> float:
    """Draw the dashed line of a model that knows nothing. Returns its loss, ln(vocab_size)."""
    loss = math.log(vocab_size)
    axes.axhline(loss, color="0.45", linestyle="--", linewidth=1)
    axes.annotate(
        f"ln {vocab_size:,} = {loss:.2f}, every token equally likely",
        (1, loss), xycoords=("axes fraction", "data"), xytext=(-6, 4), textcoords="offset points",
        ha="right", color="0.35", fontsize=fontsize,
    )  # fmt: skip
    return loss


def dress(axes: Any, last_step: int, shown: Iterable[float], below: float = 0.3) -> None:
    """Set scales, limits, labels and grid for losses (nats a token) over the step.

    The step axis is logarithmic: most of the fall is in the first few hundred steps. `shown` are the losses that must
    be seen; those that are not finite are left out, so that a run that blew up is plotted, too.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.1 * max(last_step, 10))
    finite = [loss for loss in shown if math.isfinite(loss)]
    if finite:
        axes.set_ylim(min(finite) - below, max(finite) + 0.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("optimizer step (logarithmic)")
    axes.set_ylabel("training loss (nats per token)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Any) -> bytes:
    """Return the figure's PNG: equal figures give equal bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font does not have is drawn as boxes
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
