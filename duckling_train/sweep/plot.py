"""The plot of a sweep: every run's training loss over the step, legible up to some twenty points, colour-blind safe.

Colour and line style follow the settings: the outermost swept setting has the colours and the others the line styles,
or the other way round where that is what fits. Runs that differ in their seeds alone look alike.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from duckling_data.base.plotting import COLOURS, default_settings, png
from duckling_train.plot import MEAN, Curve, draw_losses
from duckling_train.sweep.grid import SEEDS, Grid, Point, described
from duckling_train.sweep.table import Row

LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Solid, dashed, dotted, dash-dot."""
LEGEND_ROWS = 26
"""Lines of the legend that the figure has room for."""
TITLE_WIDTH = 110
"""Characters of a title's line."""

Group = tuple[object, ...]
"""The values of a point's swept settings, seeds apart: what its curve looks like."""


def group(point: Point) -> Group:
    """Return a point's group."""
    return tuple(value for name, value in point.swept.items() if name not in SEEDS)


def styles(grid: Grid) -> dict[Group, tuple[str, object]]:
    """Return a colour and a line style for each group. All differ up to 28 groups; from then on they repeat."""
    groups = list(dict.fromkeys(group(point) for point in grid.points))
    outer = next((len(values) for name, values in grid.swept.items() if name not in SEEDS), 1)
    inner = len(groups) // outer
    chosen: dict[Group, tuple[str, object]] = {}
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


@default_settings()
def sweep_plot(grid: Grid, rows: Sequence[Row], title: str) -> bytes:
    """Return a PNG of the training loss (nats a token) of every finished run over the step, both axes as in a run's.

    From 50 logs on, a curve is the running mean. The legend gives the last logged loss, the mean over the seeds. The
    dashed line is ln(vocab_size), the loss where every token is equally likely.
    """
    chosen, last = styles(grid), dict[Group, list[float]]()
    runs = [(group(row.point), Curve(row.run.steps, row.run.losses)) for row in rows if row.run is not None]
    for key, run in runs:
        last.setdefault(key, []).append(run.losses[-1])
    curves = []
    for key, run in runs:
        colour, line = chosen[key]
        label = _label(key, grid, last.pop(key)) if key in last else None  # once for all seeds
        curves.append(run.smoothed(color=colour, linestyle=line, linewidth=1.5, alpha=0.9, label=label))
    figure, axes = draw_losses((10, 5.5), curves, vocab_size=grid.points[0].config.vocab_size, fontsize=8)
    if any(run.long for _, run in runs):
        axes.set_xlabel(f"{axes.get_xlabel()}; each point the {MEAN}")
    first, *rest = textwrap.wrap(title, TITLE_WIDTH)
    axes.set_title("\n".join([first, *rest[:1]]) + (" …" if rest[1:] else ""), fontsize=10, loc="left")
    if curves:
        columns = -(-len(chosen) // LEGEND_ROWS)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, ncols=columns,
                    handlelength=3, title="last logged loss", title_fontsize=8, alignment="left")  # fmt: skip
    return png(figure, warn=False)


def _label(key: Group, grid: Grid, losses: Sequence[float]) -> str:
    """Return what the legend says of a group whose runs have these last losses."""
    swept = dict(zip((name for name in grid.swept if name not in SEEDS), key, strict=True))
    seeds = f" (mean of {len(losses)} seeds)" if len(losses) > 1 else ""
    return f"{described(swept) or 'every seed'}: {sum(losses) / len(losses):.4f}{seeds}"
