"""The plot of a sweep: every run's training loss over the step, legible up to some twenty points, colour-blind safe.

Colour and line style follow the settings: the outermost swept setting has the colours and the others the line styles,
or the other way round where that is what fits. Runs that differ in their seeds alone look alike.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from duckling_data.base.plotting import default_settings
from duckling_train.compare.axes import COLOURS, draw_ignorance, dress, new_axes, png
from duckling_train.compare.loss_plot import SMOOTHED_FROM, running_mean
from duckling_train.runs.read import RunRecord
from duckling_train.sweep.grid import SEEDS, Grid, Point, said
from duckling_train.sweep.table import Row

LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Solid, dashed, dotted, dash-dot."""
LEGEND_ROWS = 26
"""Lines of the legend that the figure has room for."""
TITLE_WIDTH = 110
"""Characters of a title's line."""

Style = tuple[str, object]


def styles(grid: Grid) -> dict[tuple[object, ...], Style]:
    """Return a colour and a line style for each combination of the swept settings, seeds apart.

    All differ up to 28 combinations; from then on they repeat.
    """
    groups = list(dict.fromkeys(group(point) for point in grid.points))
    outer = next((len(values) for name, values in grid.swept.items() if name not in SEEDS), 1)
    inner = len(groups) // outer
    chosen: dict[tuple[object, ...], Style] = {}
    for number, key in enumerate(groups):
        first, second = divmod(number, inner)
        if outer <= len(COLOURS) and inner <= len(LINES):
            colour, line = first, second
        elif inner <= len(COLOURS) and outer <= len(LINES):
            colour, line = second, first
        else:
            line, colour = divmod(number, len(COLOURS))
        chosen[key] = (COLOURS[colour], LINES[line % len(LINES)])
    return chosen


def group(point: Point) -> tuple[object, ...]:
    """Return the values of a point's swept settings, seeds apart: what its curve looks like."""
    return tuple(value for name, value in point.swept.items() if name not in SEEDS)


@default_settings()
def sweep_plot(grid: Grid, rows: Sequence[Row], title: str) -> bytes:
    """Return a PNG of the training loss (nats a token) of every finished run over the step, both axes as in a run's.

    From 50 logs on, a curve is the running mean of `report.running_mean`. The legend gives the last logged loss, the
    mean over the seeds. The dashed line is ln(vocab_size), the loss of a model that knows nothing.
    """
    figure, axes = new_axes(10, 5.5)
    ignorance = draw_ignorance(axes, grid.points[0].config.vocab_size, fontsize=8)
    chosen, labels = styles(grid), _labels(rows)
    shown, last_step, smoothed = [ignorance], 1, False
    for row in rows:
        if row.run is None:
            continue
        smoothed = smoothed or len(row.run.steps) >= SMOOTHED_FROM
        losses = _curve(row.run)
        colour, line = chosen[group(row.point)]
        label = labels.pop(group(row.point), None)  # the first of the seeds stands in the legend for all
        axes.plot(row.run.steps, losses, color=colour, linestyle=line, linewidth=1.5, alpha=0.9, label=label)
        shown += losses
        last_step = max(last_step, row.run.steps[-1])
    dress(axes, last_step, shown)
    if smoothed:
        axes.set_xlabel(f"{axes.get_xlabel()}; each point the mean over the last tenth of the logs so far")
    first, *rest = textwrap.wrap(title, TITLE_WIDTH)
    axes.set_title("\n".join([first, *rest[:1]]) + (" …" if rest[1:] else ""), fontsize=10, loc="left")
    if axes.get_lines()[1:]:
        columns = -(-len(chosen) // LEGEND_ROWS)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, ncols=columns,
                    handlelength=3, title="last logged loss", title_fontsize=8, alignment="left")  # fmt: skip
    return png(figure)


def _curve(run: RunRecord) -> Sequence[float]:
    return list(running_mean(run.losses)) if len(run.losses) >= SMOOTHED_FROM else run.losses


def _labels(rows: Sequence[Row]) -> dict[tuple[object, ...], str]:
    """Return for each combination of settings what the legend says of it."""
    last: dict[tuple[object, ...], list[float]] = {}
    names: dict[tuple[object, ...], str] = {}
    for row in rows:
        if row.run is not None:
            key = group(row.point)
            last.setdefault(key, []).append(row.run.losses[-1])
            swept = {name: value for name, value in row.point.swept.items() if name not in SEEDS}
            names[key] = said(swept) or "every seed"
    return {
        key: f"{names[key]}: {sum(values) / len(values):.4f}"
        + (f" (mean of {len(values)} seeds)" if len(values) > 1 else "")
        for key, values in last.items()
    }
