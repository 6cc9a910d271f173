"""The loss plot of a run. Equal losses give equal bytes: no clock and no version enters the PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from duckling_data.base.plotting import default_settings
from duckling_train.compare.axes import COLOURS, draw_ignorance, dress, new_axes, png

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


@default_settings()
def loss_plot(steps: Sequence[int], losses: Sequence[float], title: str, vocab_size: int) -> bytes:
    """Return a PNG of the logged losses (nats a token) over the step, both as logged.

    The dashed line is ln(vocab_size), the loss of a model that knows nothing.
    """
    figure, axes = new_axes(8, 5)
    ignorance = draw_ignorance(axes, vocab_size)
    smoothed = len(losses) >= SMOOTHED_FROM
    style = {"alpha": 0.45} if smoothed else {"marker": "o", "markersize": 3}
    axes.plot(steps, losses, color=COLOURS[0], linewidth=1, label="logged: mean since the last log", **style)
    last = f"last logged {losses[-1]:.4f}"
    if smoothed:
        mean = running_mean(losses)
        axes.plot(steps, mean, color=COLOURS[0], linewidth=2, label="mean over the last tenth of the logs so far")
        axes.legend(loc="lower left", frameon=False, fontsize=9)
        last += f", mean of the last tenth {mean[-1]:.4f}"
    axes.annotate(last, (1, 0), xycoords="axes fraction", xytext=(-6, 6), textcoords="offset points", ha="right",
                  fontsize=9)  # fmt: skip
    dress(axes, steps[-1], [*losses, ignorance], below=0.6)
    axes.set_title(title, fontsize=11)
    return png(figure)
