"""A sweep from its grid to its table and plot: each run a process of `duckling-train`, finished ones left alone.

A run is what the command alone would give: a child process gets the point's settings as `--config` and nothing else.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import DucklingError, InputError, OutsideError
from duckling_data.base.executor import Ended, LocalExecutor, run_commands
from duckling_data.base.files import refuse_linked, write_bytes
from duckling_data.base.locks import beside, held
from duckling_data.base.progress import Reporter
from duckling_data.base.ray_executor import RayExecutor
from duckling_data.base.records import plain
from duckling_data.base.strict_json import write_json
from duckling_train.engines import FAST
from duckling_train.runs.layout import RUNS
from duckling_train.sweep import layout
from duckling_train.sweep.grid import Point
from duckling_train.sweep.layout import Outcome
from duckling_train.sweep.on_ray import Make, raised_signals
from duckling_train.sweep.plan import Sweep, describe, plan
from duckling_train.sweep.table import Row, csv_table, heading, markdown_table, sweep_plot

__all__ = ["MADE", "Sweep", "describe", "failure", "plan", "run"]
MADE = (layout.TABLE_MD, layout.TABLE_CSV, layout.PLOT)


def run(sweep: Sweep, reporter: Reporter, *, overwrite: bool) -> list[Row]:
    """Make every run that is not finished, then write the table and the plot. Returns the table's rows.

    A run that fails does not stop the others. Raises InputError where a run that is there already is not the sweep's or
    another sweep is at work in the directory, OutsideError when the disk fails; on Ray also as RayExecutor does, before
    anything is written.
    """
    with contextlib.ExitStack() as stack:
        executor = None
        if sweep.cluster is not None:
            stack.enter_context(raised_signals())
            executor = stack.enter_context(sweep.cluster.executor(reporter))
        with disk_errors(sweep.folder):
            sweep.folder.mkdir(parents=True, exist_ok=True)
        # Local runs inherit the lock: a second sweep is refused as long as a run of a killed one still writes.
        lock = stack.enter_context(held(beside(sweep.folder), sweep.folder, waiting=None))
        layout.prepare(sweep.folder, sweep.grid, layout.record_of(sweep.grid, sweep.inputs), overwrite=overwrite)
        outcomes = layout.read_outcomes(sweep.folder)
        _make_runs(sweep, outcomes, reporter, lock, executor)
        rows = [Row(point, sweep.record(point), outcomes.get(point.name, Outcome())) for point in sweep.grid.points]
        write_bytes(sweep.folder / layout.TABLE_CSV, csv_table(rows))
        write_bytes(sweep.folder / layout.TABLE_MD, markdown_table(sweep.grid, rows).encode())
        write_bytes(sweep.folder / layout.PLOT, sweep_plot(sweep.grid, rows, heading(sweep.grid)))
    return rows


def _make_runs(
    sweep: Sweep, outcomes: dict[str, Outcome], reporter: Reporter, lock: int, executor: RayExecutor | None
) -> None:
    points = [point for point in sweep.grid.points if sweep.record(point) is None]
    total = len(sweep.grid.points)
    for point in points:
        sweep.clear(point)
        refuse_linked(sweep.folder, f"{RUNS}/{point.name}")
    if len(points) < total:
        reporter.say(f"{total - len(points)} of {total} runs are finished already")

    def note(point: Point, outcome: Outcome, text: str) -> None:
        outcomes[point.name] = outcome
        write_json(sweep.folder / layout.OUTCOMES, plain(outcomes))
        reporter.say(f"{sweep.count(point)}: {text}")

    def begin(group: Sequence[Point], jobs: int | None) -> None:
        together = f", {len(group)} runs at once" if len(group) > 1 else ""
        for point in group[:1] if executor is None else group:
            begins = "resuming, up to" if not together and sweep.is_started(point) else "training"
            note(point, Outcome(jobs), f"{begins} {point.config.steps:,} steps{together} ...")

    def end(point: Point, jobs: int | None, ended: Ended) -> None:
        if (record := sweep.record(point)) is not None:
            note(point, Outcome(jobs), _told(record.summary or {}))
        else:
            failed = _failure(sweep.run_dir(point), ended)
            note(point, Outcome(jobs, failed, ended.status), failed)

    groups = _together(points)
    if executor is not None:
        _make_on_ray(executor, sweep, groups, points, begin, end)
        return
    for group in groups:
        from duckling_train.runs.many import train_many

        begin(group, len(group))
        run_dirs = [sweep.run_dir(point) for point in group]
        ends = train_many([point.config for point in group], sweep.workspace, run_dirs, quiet=True)
        for point, result in zip(group, ends, strict=True):
            if isinstance(result, InputError):
                note(point, Outcome(len(group), str(result), result.exit_status), str(result))
            else:
                note(point, Outcome(len(group)), _told(result))
        points = [point for point in points if point not in group]

    def commands() -> Iterator[list[str]]:
        for point in points:
            begin([point], sweep.jobs)
            yield [sys.executable, "-P", "-m", "duckling_train", *sweep.arguments(point)]

    with contextlib.closing(run_commands(LocalExecutor(sweep.jobs), commands(), lock)) as results:
        for number, ended in results:
            end(points[number], sweep.jobs, ended)


def _make_on_ray(
    executor: RayExecutor, sweep: Sweep, groups: list[list[Point]], points: list[Point],
    begin: Callable[[Sequence[Point], int | None], None], end: Callable[[Point, int | None, Ended], None],
) -> None:  # fmt: skip
    """Make the runs on a cluster. How many run side by side there is not known: others may use it, too."""
    grouped = {point.name for group in groups for point in group}
    tasks = [tuple(group) for group in groups] + [(point,) for point in points if point.name not in grouped]

    def begun() -> Iterator[tuple[Point, ...]]:
        for task in tasks:
            begin(task, None)
            yield task

    with contextlib.closing(executor.attempt(Make(sweep), begun())) as results:
        for number, ends in results:
            if isinstance(ends, DucklingError):
                ends = [Ended(ends.exit_status, str(ends))] * len(tasks[number])
            for point, ended in zip(tasks[number], ends, strict=True):
                end(point, None, ended)


def _together(points: list[Point]) -> list[list[Point]]:
    """Return the groups of points that the fast engine, where it was asked for, trains at once."""
    fast = [point for point in points if point.config.engine == FAST]
    if not fast:
        return []
    from duckling_train.engines.fast.engine import in_common  # torch takes seconds to import

    groups: dict[Any, list[Point]] = {}
    for point in fast:
        groups.setdefault(in_common(point.config), []).append(point)
    return [group for group in groups.values() if len(group) > 1]


def _told(summary: dict[str, Any]) -> str:
    losses = f"loss {summary['first_loss']:.4f} to {summary['last_loss']:.4f}"
    return f"{losses}, {summary['steps_per_second']:.1f} steps/s"


def _failure(run_dir: Path, end: Ended) -> str:
    """Return why a run failed, in one line."""
    if end.status < 0:
        return f"ended by signal {-end.status}"
    message = end.message.removeprefix("duckling-train: ")
    message = message.replace(f" in {run_dir}", "").replace(str(run_dir), run_dir.name)
    return message or f"ended with exit status {end.status}"


def failure(sweep: Sweep, rows: list[Row]) -> InputError | OutsideError | None:
    """Return the error that the sweep ends with, or None where every run is finished.

    It is an InputError (exit status 2) where all that failed did so for their settings, as with a loss that is not
    finite; an OutsideError (3) where any failed otherwise: the same call again may then finish it.
    """
    failed = [row for row in rows if row.run is None]
    if not failed:
        return None
    settings = all(row.outcome.status == InputError.exit_status for row in failed)
    first = f"{failed[0].point.label}: {failed[0].failed}"
    kind = InputError if settings else OutsideError
    return kind(f"{len(failed)} of {len(rows)} runs failed, see {sweep.folder / layout.TABLE_MD}; the first: {first}")
