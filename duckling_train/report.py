"""The loss plot of a run. Equal losses give equal bytes: no clock and no version enters the PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SMOOTHED_FROM = 50
"""From this many logged losses on, their running mean is drawn over them."""
WINDOW_SHARE = 10
"""The running mean at log n is over the last 1/WINDOW_SHARE of the n logs so far: one width on a logarithmic axis."""


def running_mean(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return, for each value, the mean over the last tenth of the values so far: float64, as long as `values`."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.maximum(ends // WINDOW_SHARE, 1)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def loss_plot(steps: Sequence[int], losses: Sequence[float], title: str, vocab_size: int) -> bytes:
    """Return a PNG of the logged losses (nats a token) over the step, both as logged.

    The step axis is logarithmic: most of the fall is in the first few hundred steps. The dashed line is ln(vocab_size),
    the loss of a model that knows nothing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ignorance = math.log(vocab_size)
    axes.axhline(ignorance, color="0.45", linestyle="--", linewidth=1)
    axes.annotate(
        f"ln {vocab_size:,} = {ignorance:.2f}, every token equally likely",
        (1, ignorance), xycoords=("axes fraction", "data"), xytext=(-6, 4), textcoords="offset points",
        ha="right", color="0.35", fontsize=9,
    )  # fmt: skip
    smoothed = len(losses) >= SMOOTHED_FROM
    style = {"alpha": 0.45} if smoothed else {"marker": "o", "markersize": 3}
    axes.plot(steps, losses, color="tab:blue", linewidth=1, label="logged: mean since the last log", **style)
    last = f"last logged {losses[-1]:.4f}"
    if smoothed:
        mean = running_mean(losses)
        axes.plot(steps, mean, color="tab:blue", linewidth=2, label="mean over the last tenth of the logs so far")
        axes.legend(loc="lower left", frameon=False, fontsize=9)
        last += f", mean of the last tenth {mean[-1]:.4f}"
    axes.annotate(last, (1, 0), xycoords="axes fraction", xytext=(-6, 6), textcoords="offset points", ha="right",
                  fontsize=9)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.1 * max(steps[-1], 10))
    shown = [loss for loss in (*losses, ignorance) if math.isfinite(loss)]  # a run that blew up is plotted, too
    axes.set_ylim(min(shown) - 0.6, max(shown) + 0.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("optimizer step (logarithmic)")
    axes.set_ylabel("training loss (nats per token)")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
