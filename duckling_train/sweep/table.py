"""The table of a sweep: a row a run, as CSV for programs and as Markdown for people.

Losses are shown at the steps of the original's own sweeps, as far as the runs go, and at the last step logged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from duckling_train.config import NOT_IN_THE_NAME
from duckling_train.runs.read import RunRecord
from duckling_train.settings import FIELDS
from duckling_train.sweep.grid import Grid, Point, said, text, word

SERIES = (1, 2, 5)
FIRST_STEPS = (1, 50)
"""The original's tables show the loss at step 1 and at 50, 100, 200, 500, 1000, 2000, ..."""


@dataclass(frozen=True)
class Row:
    """A run of the sweep, as far as it came."""

    point: Point

    run: RunRecord | None
    """Its record if it is finished: with a summary, and at least one loss."""

    jobs: int | None
    """How many ran side by side when it was made; None where that is not known."""

    failed: str | None
    """Why it is not finished."""

    status: int | None
    """The exit status that it failed with."""


def shown_steps(last: int) -> list[int]:
    """Return the steps up to `last` at which the table shows a loss: 1, 50, 100, 200, 500, 1000, ..."""
    series = (factor * 10**power for power in range(2, len(str(last)) + 1) for factor in SERIES)
    return list(takewhile(lambda step: step <= last, [*FIRST_STEPS, *series]))


def loss_at(run: RunRecord, step: int) -> float | None:
    """Return the loss (nats a token) that the run logged at a step, or None where it logged none there."""
    return run.losses[run.steps.index(step)] if step in run.steps else None


def csv_table(rows: Sequence[Row]) -> bytes:
    """Return the table as CSV (UTF-8): a header, then a line a run; figures as the runs recorded them.

    All columns but `steps_per_second`, `tokens_per_second` and `jobs` are the same for the same grid and data.
    """
    swept, steps = list(rows[0].point.swept), _logged(rows)
    header = ["run", *(word(name).replace("-", "_") for name in swept), "parameters", "steps_per_second"]
    header += ["tokens_per_second", "jobs", *(f"loss_{step}" for step in steps), "last_logged_step", "last_loss"]
    header += ["validation_loss", "failed"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        settings = [text(name, value) for name, value in row.point.swept.items()]
        figures = _figures(row.run, steps) if row.run is not None else [None] * (len(steps) + 6)
        speed, rest = figures[:3], figures[3:]
        writer.writerow([row.point.name, *settings, *speed, row.jobs, *rest, row.failed])
    return buffer.getvalue().encode()


def _figures(run: RunRecord, steps: Iterable[int]) -> list[Any]:
    speed = [_summary(run)[name] for name in ("parameters", "steps_per_second", "tokens_per_second")]
    return [*speed, *(loss_at(run, step) for step in steps), run.steps[-1], run.losses[-1], _validation(run)]


def _summary(run: RunRecord) -> dict[str, Any]:
    assert run.summary is not None, "a finished run has one"
    return run.summary


def _validation(run: RunRecord) -> float | None:
    return float(run.evaluations[-1]["loss"]) if run.evaluations else None


def _logged(rows: Sequence[Row]) -> list[int]:
    """Return the steps to show: those of the series at which any run logged."""
    logged = {step for row in rows if row.run is not None for step in row.run.steps}
    return [step for step in shown_steps(max(logged, default=0)) if step in logged]


def markdown_table(grid: Grid, rows: Sequence[Row]) -> str:
    """Return the table as Markdown: what was swept, the rows, what failed, and how to read it."""
    runs = [row.run for row in rows if row.run is not None]
    lasts = {run.steps[-1] for run in runs}
    steps = _logged(rows)
    common = lasts.pop() if len(lasts) == 1 else None
    steps += [common] if common is not None and common not in steps else []
    validated = any(run.evaluations for run in runs)
    header = [*(word(name).replace("-", " ") for name in grid.swept), "parameters", "steps/s", "tokens/s"]
    header += [f"{step:,}" for step in steps] + ([] if common is not None else ["last"])
    header += ["validation"] if validated else []
    if not grid.swept:
        header = ["run", *header]
    lines = [_line(header), _line(["---"] * len(header))]
    for row in rows:
        cells = [text(name, value) for name, value in row.point.swept.items()] or [row.point.name]
        if row.run is None:
            cells += ["failed"] + [""] * (len(header) - len(cells) - 1)
        else:
            cells += _shown(row.run, steps, last=common is None)
            cells += [_decimals(_validation(row.run))] if validated else []
        lines.append(_line(cells))
    failures = [f"- {row.point.label}: {row.failed}" for row in rows if row.failed is not None]
    parts = [heading(grid), "\n".join(lines), "\n".join(["Failed:", "", *failures] if failures else [])]
    return "\n\n".join([part for part in parts if part] + [notes(rows, validated=validated)]) + "\n"


def heading(grid: Grid) -> str:
    """Return one line on the grid: its values, and what deviates from Duckling II in all of its runs."""
    axes = [
        f"{word(name).replace('-', ' ')} {', '.join(text(name, value) for value in values)}"
        for name, values in grid.swept.items()
    ]
    config = grid.points[0].config
    fixed = {name: getattr(config, name) for name in FIELDS if name not in grid.swept}
    always = ("steps", "seed")
    deviating = {
        name: value
        for name, value in fixed.items()
        if name in always or (name not in NOT_IN_THE_NAME and value != FIELDS[name].default)
    }
    runs = f"{len(grid.points)} run{'s' if len(grid.points) > 1 else ''}"
    swept = f"{runs}: {' × '.join(axes)}" if axes else runs
    alike = f"{'; all' if axes else ''} with {said(deviating)}" if deviating else ""
    return f"{swept}{alike}; else Duckling II's settings."


def notes(rows: Sequence[Row], *, validated: bool) -> str:
    """Return how the table is to be read: what the losses are means of, and how the speed was measured."""
    finished = [row for row in rows if row.run is not None]
    runs = [row.run for row in rows if row.run is not None]
    parts = ["Numbered columns: the training loss logged at that step, the mean since the last log, in nats a token."]
    if validated:
        counts = sorted({int(run.evaluations[-1]["rows"]) for run in runs if run.evaluations})
        parts.append(f"Validation: the mean loss of the first {' or '.join(f'{n:,}' for n in counts)} validation rows.")
    if runs:
        jobs = sorted({row.jobs for row in finished}, key=lambda number: number or 0)
        measured = "; ".join(f"{_said_jobs(number)}{_of_all(finished, number)}" for number in jobs)
        devices, threads = (sorted({_summary(run)[name] for run in runs}) for name in ("device_name", "threads"))
        parts.append(f"Steps/s: measured with {measured}; a run side by side with others is slower than one alone.")
        parts.append(f"Device: {', '.join(map(str, devices))}, CPU threads a run: {', '.join(map(str, threads))}; "
                     "threads shape the bits of a CPU run.")  # fmt: skip
    return "\n".join(parts)


def _of_all(rows: Sequence[Row], jobs: int | None) -> str:
    """Return how many runs were made so, unless all were."""
    count = sum(row.jobs == jobs for row in rows)
    return "" if count == len(rows) else f" ({count} of {len(rows)} runs)"


def _said_jobs(jobs: int | None) -> str:
    if jobs is None:
        return "an unknown number of runs side by side"
    return "one run at a time (--jobs 1)" if jobs == 1 else f"up to {jobs} runs side by side (--jobs {jobs})"


def _shown(run: RunRecord, steps: Sequence[int], *, last: bool) -> list[str]:
    parameters, speed, tokens, *_ = _figures(run, [])
    cells = [f"{parameters:,}", f"{speed:.1f}" if speed >= 10 else f"{speed:.2f}", f"{tokens:,.0f}"]
    cells += [_decimals(loss_at(run, step)) for step in steps]
    return cells + ([f"{run.losses[-1]:.4f} ({run.steps[-1]:,})"] if last else [])


def _decimals(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
