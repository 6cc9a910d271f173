"""The results of a sweep: a table, a row a run, as CSV for programs and as Markdown for people; and a plot."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from duckling_data.base.plotting import COLOURS, default_settings, png
from duckling_train.compare.table import (
    DYNAMICS,
    Column,
    csv_bytes,
    dynamics_value,
    markdown,
    summarized,
    validation_loss,
)
from duckling_train.config import word
from duckling_train.plot import LINES, MEAN, Curve, draw_losses, legend_columns
from duckling_train.runs.read import RunRecord
from duckling_train.settings import FIELDS
from duckling_train.sweep.grid import SEEDS, Grid, Point, described, deviates, spoken, text
from duckling_train.sweep.layout import Outcome


@dataclass(frozen=True)
class Row:
    """A run of the sweep, as far as it came."""

    point: Point
    run: RunRecord | None
    """Its record if it is finished: with a summary, and at least one loss."""
    outcome: Outcome
    """How it was made, and why it is not finished."""

    @property
    def failed(self) -> str | None:
        """Why the run is not finished; None where it is."""
        return (self.outcome.failed or "not finished") if self.run is None else None


def shown_steps(last: int) -> list[int]:
    """Return the steps up to `last` at which the table shows a loss, the original's: 1, 50, 100, 200, 500, 1000, ..."""
    series = (factor * 10**power for power in range(2, len(str(last)) + 1) for factor in (1, 2, 5))
    return [step for step in (1, 50, *series) if step <= last]


def csv_table(rows: Sequence[Row]) -> bytes:
    """Return the table as CSV (UTF-8): a header, then a line a run; figures as the runs recorded them.

    All columns but `steps_per_second`, `tokens_per_second` and `jobs` are the same for the same grid and data.
    """
    columns = [Column[Row]("run", lambda row: row.point.name)]
    columns += [_setting_column(word(name).replace("-", "_"), name) for name in rows[0].point.swept]
    for name in ("parameters", "steps_per_second", "tokens_per_second"):
        columns.append(_figure(name, summarized(name)))
    columns.append(Column("jobs", lambda row: row.outcome.jobs))
    columns += [_figure(f"loss_{step}", _loss_at(step)) for step in _logged(rows)]
    columns += [
        _figure("last_logged_step", lambda run: run.steps[-1]),
        _figure("last_loss", lambda run: run.losses[-1]),
        _figure("validation_loss", validation_loss),
        *(_figure(name, dynamics_value(name)) for name in DYNAMICS.values()),
        Column("failed", lambda row: row.failed),
    ]
    return csv_bytes(columns, rows)


def markdown_table(grid: Grid, rows: Sequence[Row]) -> str:
    """Return the table as Markdown: what was swept, the rows, what failed, and how to read it."""
    columns = [_setting_column(spoken(name), name) for name in grid.swept]
    columns = columns or [Column("run", lambda row: row.point.name)]
    columns += [
        _figure("parameters", summarized("parameters"), ",", failed="failed"),
        _figure("steps/s", _steps_per_second),
        _figure("tokens/s", summarized("tokens_per_second"), ",.0f"),
    ]
    steps, runs = _logged(rows), _finished(rows)
    lasts = {run.steps[-1] for run in runs}
    if len(lasts) == 1:
        steps += [step for step in lasts if step not in steps]
    columns += [_figure(f"{step:,}", _loss_at(step), ".4f") for step in steps]
    if len(lasts) != 1:
        columns.append(_figure("last", lambda run: f"{run.losses[-1]:.4f} ({run.steps[-1]:,})"))
    if any(run.evaluations for run in runs):
        columns.append(_figure("validation", validation_loss, ".4f"))
    if any(run.dynamics for run in runs):
        columns += [_figure(heading, dynamics_value(name), ".4g") for heading, name in DYNAMICS.items()]
    parts = [heading(grid), markdown(columns, rows)]
    if over := seed_table(grid, rows):
        parts += ["Mean ± standard deviation over the seeds:", over]
    if failures := [f"- {row.point.label}: {row.failed}" for row in rows if row.run is None]:
        parts += ["Failed:", "\n".join(failures)]
    return "\n\n".join([*parts, notes(rows)]) + "\n"


def seed_table(grid: Grid, rows: Sequence[Row]) -> str:
    """Return a Markdown table with a line a combination of the other settings; "" where no seed is swept.

    Mean and sample standard deviation (n - 1) of the last logged and of the validation loss over its finished runs.
    """
    if not set(SEEDS) & set(grid.swept):
        return ""
    groups: dict[str, list[RunRecord]] = {group(point): [] for point in grid.points}
    for row in rows:
        if row.run is not None:
            groups[group(row.point)].append(row.run)
    columns: list[Column[tuple[str, list[RunRecord]]]] = [
        Column("settings", lambda line: line[0]),
        Column("runs", lambda line: len(line[1])),
        Column("last loss", lambda line: _mean_and_deviation([run.losses[-1] for run in line[1]])),
    ]
    if any(run.evaluations for runs in groups.values() for run in runs):
        columns.append(Column("validation", lambda line: _mean_and_deviation(list(_validation_losses(line[1])))))
    return markdown(columns, groups.items())


def _validation_losses(runs: Iterable[RunRecord]) -> Iterator[float]:
    return (loss for run in runs if (loss := validation_loss(run)) is not None)


def _mean_and_deviation(values: Sequence[float]) -> str | None:
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else None
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"


def _setting_column(heading: str, name: str) -> Column[Row]:
    return Column(heading, lambda row: text(name, row.point.swept[name]))


def _figure(
    heading: str, value: Callable[[RunRecord], Any], spec: str = "", *, failed: str | None = None
) -> Column[Row]:
    """Return a column with a figure of each finished run, and `failed` for every other."""
    return Column(heading, lambda row: failed if row.run is None else value(row.run), spec)


def _loss_at(step: int) -> Callable[[RunRecord], float | None]:
    """Return the function that gives the loss (nats a token) that a run logged at a step, None where it logged none."""
    return lambda run: run.losses[run.steps.index(step)] if step in run.steps else None


def _steps_per_second(run: RunRecord) -> str:
    speed = summarized("steps_per_second")(run)
    return f"{speed:.1f}" if speed >= 10 else f"{speed:.2f}"


def _finished(rows: Sequence[Row]) -> list[RunRecord]:
    return [row.run for row in rows if row.run is not None]


def _logged(rows: Sequence[Row]) -> list[int]:
    """Return the steps to show: those of the series at which any run logged."""
    logged = {step for run in _finished(rows) for step in run.steps}
    return [step for step in shown_steps(max(logged, default=0)) if step in logged]


def heading(grid: Grid) -> str:
    """Return one line on the grid: its values, and what deviates from Duckling II in all of its runs."""
    axes = [f"{spoken(name)} {', '.join(text(name, value) for value in values)}" for name, values in grid.swept.items()]
    fixed = {name: grid.values(name)[0] for name in FIELDS if name not in grid.swept}
    deviating = {name: value for name, value in fixed.items() if name in ("steps", "seed") or deviates(name, value)}
    if not axes:
        return f"1 run with {described(deviating)}; else Duckling II's settings."
    alike = f"; all with {described(deviating)}" if deviating else ""
    return f"{len(grid.points)} runs: {' × '.join(axes)}{alike}; else Duckling II's settings."


def notes(rows: Sequence[Row]) -> str:
    """Return how to read the table: what the losses are means of, and how the speed was measured."""
    runs = _finished(rows)
    parts = ["Numbered columns: the training loss logged at that step, the mean since the last log, in nats a token."]
    if counts := sorted({int(run.evaluations[-1]["rows"]) for run in runs if run.evaluations}):
        parts.append(f"Validation: the mean loss of the first {' or '.join(f'{n:,}' for n in counts)} validation rows.")
    if runs:
        jobs = Counter(row.outcome.jobs for row in rows if row.run is not None)
        measured = "; ".join(_measured(n, jobs[n], len(runs)) for n in sorted(jobs, key=lambda n: n or 0))
        devices, threads = (sorted({summarized(name)(run) for run in runs}) for name in ("device_name", "threads"))
        parts.append(f"Steps/s: measured with {measured}; a run side by side with others is slower than one alone.")
        parts.append(f"Device: {', '.join(map(str, devices))}, CPU threads a run: {', '.join(map(str, threads))}; "
                     "threads shape the bits of a CPU run.")  # fmt: skip
    return "\n".join(parts)


def _measured(jobs: int | None, count: int, of: int) -> str:
    """Return how the speed of `count` runs of so many was measured."""
    share = "" if count == of else f" ({count} of {of} runs)"
    if jobs is None:
        return f"an unknown number of runs side by side{share}"
    return f"{'one run at a time' if jobs == 1 else f'up to {jobs} runs side by side'} (--jobs {jobs}){share}"


def group(point: Point) -> str:
    """Return what the plot calls a point's curve: its swept settings, seeds apart."""
    return described({name: value for name, value in point.swept.items() if name not in SEEDS}) or "every seed"


def styles(grid: Grid) -> dict[str, tuple[str, object]]:
    """Return a colour and a line style for each group. All differ up to 28 groups; from then on they repeat.

    The outermost swept setting has the colours and the others the line styles, or the other way round where that fits.
    """
    groups = list(dict.fromkeys(group(point) for point in grid.points))
    outer = next((len(values) for name, values in grid.swept.items() if name not in SEEDS), 1)
    inner = len(groups) // outer
    chosen: dict[str, tuple[str, object]] = {}
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

    From 50 logs on, a curve is the running mean. The legend gives the last logged loss, mean ± standard deviation over
    the seeds.
    """
    chosen, last = styles(grid), dict[str, list[float]]()
    runs = [(group(row.point), Curve(row.run.steps, row.run.losses)) for row in rows if row.run is not None]
    for key, run in runs:
        last.setdefault(key, []).append(run.losses[-1])
    curves = []
    for key, run in runs:
        colour, line = chosen[key]
        label = None
        if losses := last.pop(key, None):  # once for all seeds
            seeds = f" ({len(losses)} seeds)" if len(losses) > 1 else ""
            label = f"{key}: {_mean_and_deviation(losses)}{seeds}"
        curves.append(run.smoothed(color=colour, linestyle=line, linewidth=1.5, alpha=0.9, label=label))
    labels = [str(curve.style["label"]) for curve in curves if curve.style["label"]]
    columns = legend_columns(labels, 125)
    size = 10, 5 + 0.16 * -(-len(labels) // columns)
    figure, axes = draw_losses(size, curves, vocab_size=grid.points[0].config.vocab_size, fontsize=8)
    if any(run.long for _, run in runs):
        axes.set_xlabel(f"{axes.get_xlabel()}; each point the {MEAN}")
    first, *rest = textwrap.wrap(title, 110)
    axes.set_title("\n".join([first, *rest[:1]]) + (" …" if rest[1:] else ""), fontsize=10, loc="left")
    if curves:
        figure.legend(loc="outside lower left", frameon=False, fontsize=8, ncols=columns, handlelength=4,
                      title="last logged loss", title_fontsize=8, alignment="left")  # fmt: skip
    return png(figure)
