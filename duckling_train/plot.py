"""Loss plots: of a run, of runs side by side, of a sweep. Equal losses give equal bytes: no clock enters a PNG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import printable
from duckling_data.base.plotting import COLOURS, default_settings, png

LINES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Line styles: solid, dashed, dotted, dash-dot. With COLOURS, 28 runs look different."""
SMOOTHED_FROM = 50
"""From this many logged losses on, their running mean is drawn."""
MEAN = "mean over the last tenth of the logs so far"
LOGGED_UP_TO = 4
"""With up to so many runs side by side, the logged losses are drawn faintly under their running means."""
DATA_DIFFER = "different data"


@dataclass(frozen=True)
class Curve:
    """One line of a plot: losses (nats a token) over the step."""

    steps: Sequence[int]
    losses: Sequence[float]
    style: Mapping[str, Any] = field(default_factory=dict)
    """Matplotlib's properties of the line; with a `label` it is in the legend."""

    @property
    def long(self) -> bool:
        """Whether the losses are so many that their running mean is drawn."""
        return len(self.losses) >= SMOOTHED_FROM

    def smoothed(self, **style: Any) -> Curve:
        """Return the running mean of the losses in another style; the losses themselves where they are few."""
        return Curve(self.steps, running_mean(self.losses).tolist() if self.long else self.losses, style)


def running_mean(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return, for each value, the mean over the last tenth of the values so far: float64, as long as `values`.

    On a logarithmic axis, this window has one width everywhere.
    """
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.maximum(ends // 10, 1)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def draw_losses(
    size: tuple[float, float], curves: Sequence[Curve], *, vocab_size: int | None = None, fontsize: float = 9,
    limits: Iterable[float] = (), below: float = 0.3,
) -> tuple[Any, Any]:  # fmt: skip
    """Return a Matplotlib figure of `size` (inches) with the curves, and its axes; no window system is touched.

    With a `vocab_size` the loss of equally likely tokens, ln(vocab_size), is drawn, too. The rest is as `draw_curves`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = [*limits]
    if vocab_size is not None:
        shown.append(math.log(vocab_size))
        axes.axhline(shown[-1], color="0.45", linestyle="--", linewidth=1)
        axes.annotate(
            f"ln {vocab_size:,} = {shown[-1]:.2f}, every token equally likely",
            (1, shown[-1]), xycoords=("axes fraction", "data"), xytext=(-6, 4), textcoords="offset points",
            ha="right", color="0.35", fontsize=fontsize,
        )  # fmt: skip
    draw_curves(axes, curves, shown, below)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_curves(axes: Any, curves: Sequence[Curve], limits: Iterable[float] = (), below: float = 0.3) -> None:
    """Draw the curves on Matplotlib's axes, with their labels.

    All losses drawn are within the limits of the axis, those in `limits` as well, with a margin `below`; those that are
    not finite do not count, so that a run that diverged can be plotted. The step axis is logarithmic: the first few
    hundred steps change most.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    shown = [*limits]
    for curve in curves:
        axes.plot(curve.steps, curve.losses, **curve.style)
        shown += curve.losses
    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.1 * max([10, *(curve.steps[-1] for curve in curves)]))
    if finite := [loss for loss in shown if math.isfinite(loss)]:
        axes.set_ylim(min(finite) - below, max(finite) + 0.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("optimizer step (logarithmic)")
    axes.set_ylabel("training loss (nats per token)")


@default_settings()
def loss_plot(steps: Sequence[int], losses: Sequence[float], title: str, vocab_size: int) -> bytes:
    """Return a PNG of a run's logged losses (nats a token) over the step, with their running mean if they are many."""
    style = {"color": COLOURS[0], "linewidth": 1, "label": "logged: mean since the last log"}
    logged, last = Curve(steps, losses, style | {"marker": "o", "markersize": 3}), f"last logged {losses[-1]:.4f}"
    curves = [logged]
    if logged.long:
        mean = logged.smoothed(color=COLOURS[0], linewidth=2, label=MEAN)
        curves = [Curve(steps, losses, style | {"alpha": 0.45}), mean]
        last += f", mean of the last tenth {mean.losses[-1]:.4f}"
    figure, axes = draw_losses((8, 5), curves, vocab_size=vocab_size, below=0.6)
    if logged.long:
        axes.legend(loc="lower left", frameon=False, fontsize=9)
    axes.annotate(last, (1, 0), xycoords="axes fraction", xytext=(-6, 6), textcoords="offset points", ha="right",
                  fontsize=9)  # fmt: skip
    axes.set_title(title, fontsize=11)
    return png(figure, warn=False)


@default_settings()
def overlay(runs: Sequence[Curve], labels: Sequence[str], *, same_data: bool) -> bytes:
    """Return a PNG of the logged losses of several runs, running means where they are many, with a label each.

    Each run has a loss. Up to 28 runs look different, and a run that has the losses of one before it has another line
    style, so that both are seen. The title says so where the runs' data differ.
    """
    curves = []
    for number, run in enumerate(runs):
        hidden = sum(list(run.losses) == list(other.losses) for other in runs[:number])
        colour = COLOURS[number % len(COLOURS)]
        line = LINES[(number // len(COLOURS) + hidden) % len(LINES)]
        if run.long and len(runs) <= LOGGED_UP_TO:
            curves.append(Curve(run.steps, run.losses, {"color": colour, "linewidth": 0.8, "alpha": 0.25}))
        style = {"color": colour, "linestyle": line, "linewidth": 1.7, "markersize": 3, "label": "run"}
        curves.append(run.smoothed(**style, marker="o" if len(run.losses) == 1 else None))
    columns = legend_columns(labels, 130)
    height = 5.5 + 0.18 * -(-len(labels) // columns)
    figure, axes = draw_losses((11, height), curves, limits=[loss for run in runs for loss in run.losses])
    if any(run.long for run in runs):
        axes.set_xlabel(f"{axes.get_xlabel()}; each point the {MEAN}")
    if not same_data:
        axes.set_title(f"{DATA_DIFFER}: these losses are no comparison of the runs", fontsize=11, color="#B00020")
    # Labels are set here, as plain text: a legend drops one that begins with "_", and "$" would begin a formula.
    legend = figure.legend(loc="outside lower left", frameon=False, fontsize=9, handlelength=4, ncols=columns)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(printable(label))
    return png(figure, warn=False)


def legend_columns(labels: Sequence[str], characters: int) -> int:
    """Return how many columns of a legend's labels are side by side in a figure that is so many characters wide."""
    longest = max(map(len, labels), default=0) + 8  # the line before the label, and the gap behind it
    return max(1, min(len(labels), characters // longest))
