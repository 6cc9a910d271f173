"""The losses of several runs in one plot, for `duckling-train compare`, in the dress of a run's own loss plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duckling_data.base.plotting import default_settings
from duckling_train.compare.axes import COLOURS, dress, new_axes, png
from duckling_train.compare.loss_plot import SMOOTHED_FROM, running_mean
from duckling_train.runs.read import RunRecord, same_data

LINES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1, 1)))
"""A line style for each round of COLOURS: with both, 21 runs look different."""
FAINT_UP_TO = 4
"""Up to so many runs the logged losses are drawn too, faintly, under their running means."""
DATA_DIFFER = "different data"


@default_settings()
def overlay(records: Sequence[RunRecord], labels: Sequence[str]) -> bytes:
    """Return a PNG of the runs' losses (nats a token) over the step, on a logarithmic step axis.

    Drawn is the running mean of `report.running_mean`, the logged losses themselves where they are few. Each record
    holds a loss. Equal records and labels give equal bytes.
    """
    figure, axes = new_axes(11, 6)
    curves = _draw_curves(axes, records)
    dress(axes, max(record.steps[-1] for record in records), [loss for record in records for loss in record.losses])
    if any(len(record.losses) >= SMOOTHED_FROM for record in records):
        axes.set_ylabel(f"{axes.get_ylabel()}, mean over the last tenth of the logs so far")
    if not same_data(records):
        axes.set_title(f"{DATA_DIFFER}: these losses are no comparison of the runs", fontsize=11, color="#B00020")
    # Labels are set afterwards, as plain text: a legend drops one that begins with "_", and "$" would begin a formula.
    legend = figure.legend(
        curves, ["run"] * len(curves), loc="outside right upper", frameon=False, fontsize=9, handlelength=3
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
    return png(figure)


def _draw_curves(axes: Any, records: Sequence[RunRecord]) -> list[Any]:
    """Draw each run's curve, in a look of its own up to 21 runs. Returns the curves in order."""
    curves: list[Any] = []
    for number, record in enumerate(records):
        colour = COLOURS[number % len(COLOURS)]
        style = LINES[number // len(COLOURS) % len(LINES)]
        losses: Sequence[float] = record.losses
        if len(losses) >= SMOOTHED_FROM:
            losses = running_mean(losses).tolist()
            if len(records) <= FAINT_UP_TO:
                axes.plot(record.steps, record.losses, color=colour, linewidth=0.8, alpha=0.25)
        marker = "o" if len(losses) == 1 else None
        curves += axes.plot(
            record.steps, losses, color=colour, linestyle=style, linewidth=1.7, marker=marker, markersize=3
        )
    return curves
