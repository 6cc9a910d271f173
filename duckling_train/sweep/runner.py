"""A sweep from its grid to its table and plot: each run a process of `duckling-train`, finished ones left alone.

A run is what the command alone would give: a child process gets the point's settings as `--config` and nothing else,
and one that was interrupted goes on by `--resume`.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckling_data.base.children import Ended, run_side_by_side
from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.files import write_bytes
from duckling_data.base.progress import Reporter
from duckling_train.data import open_workspace
from duckling_train.processes import process_count
from duckling_train.runs.layout import RUNS
from duckling_train.runs.read import read_run
from duckling_train.sweep import place as places
from duckling_train.sweep.grid import Grid, Lists, Point, grid_name, make_grid
from duckling_train.sweep.plot import sweep_plot
from duckling_train.sweep.table import Row, csv_table, heading, markdown_table

THREADS = "threads"
PROGRAM = "duckling-train: "
MADE = (places.TABLE_MD, places.TABLE_CSV, places.PLOT)


@dataclass(frozen=True)
class Sweep:
    """A sweep that may begin: its grid, where it goes, and what it is trained on."""

    grid: Grid
    workspace: Path
    place: Path
    jobs: int
    inputs: dict[str, Any]

    def run_dir(self, point: Point) -> Path:
        """Return a point's run directory."""
        return self.place / RUNS / point.name

    def command(self, point: Point) -> list[str]:
        """Return the command that makes the point's run, or goes on with it."""
        program = [sys.executable, "-P", "-m", "duckling_train", "-w", str(self.workspace), "--quiet"]
        run_dir = self.run_dir(point)
        if places.is_started(run_dir):
            return [*program, "--resume", str(run_dir)]
        config = self.place / places.POINTS / f"{point.name}.json"
        return [*program, "--out", str(run_dir), "--config", str(config)]


def plan(
    lists: Lists,
    workspace: Path,
    out: Path | None,
    name: str | None,
    jobs: int,
    *,
    preset: str,
    file: Path | None,
    overwrite: bool,
) -> Sweep:
    """Return the sweep of a grid, in `out` or under `name` in the workspace, by default the grid's own. Writes nothing.

    Raises InputError for settings out of range, a workspace that fits none of the points, a place where the sweep may
    not go on, and a call under torchrun.
    """
    if process_count() > 1:
        raise InputError("a sweep starts processes of its own: call it without torchrun, with --jobs")
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; it must be at least 1")
    grid = make_grid(lists, preset=preset, file=file)
    place = places.locate(workspace, out, name if out is not None or name is not None else grid_name(grid))
    earlier = None if overwrite else places.read_record(place)
    if (threads := _threads(grid, earlier, jobs)) is not None:
        grid = make_grid({**lists, THREADS: (threads,)}, preset=preset, file=file)
    sweep = Sweep(grid, workspace, place, jobs, _inputs(workspace, grid))
    if reason := places.refusal(place, earlier, places.record_of(grid, sweep.inputs)):
        raise InputError(reason)
    return sweep


def _threads(grid: Grid, earlier: dict[str, Any] | None, jobs: int) -> int | None:
    """Return the CPU threads of each run where the user gave none: as many as before in this place, else a fair share.

    They split sums and so shape a run's bits: runs of one sweep have the same, whatever --jobs it goes on with.
    """
    if any(value is not None for value in grid.values(THREADS)):
        return None
    if earlier is not None:
        before: int | None = earlier["fixed"].get(THREADS)
        return before
    side_by_side = min(jobs, len(grid.points))
    return max(1, cores() // side_by_side) if side_by_side > 1 else None


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _inputs(workspace: Path, grid: Grid) -> dict[str, Any]:
    """Return the digests of the workspace's data. Raises InputError where the data fit none of the points."""
    shapes = {(point.config.n_positions, point.config.vocab_size): point.config for point in grid.points}
    for number, config in enumerate(shapes.values(), 1):
        try:
            return open_workspace(workspace, config).record()
        except InputError:
            if number == len(shapes):
                raise
    raise AssertionError("a grid has a point")


def describe(sweep: Sweep) -> str:
    """Return what the sweep would do: a line for each point, with its parameters, its directory and its state."""
    from duckling_train.model import count_params

    lines = [heading(sweep.grid), f"{sweep.jobs} at a time, in {sweep.place}:"]
    for number, point in enumerate(sweep.grid.points, 1):
        run_dir = sweep.run_dir(point)
        state = "would train"
        if places.is_started(run_dir):
            state = "is finished" if places.is_finished(run_dir) else "would go on"
        parameters = f"{count_params(point.config):,} parameters"
        lines.append(f"{_count(sweep, number)} {point.label}: {parameters}, {state}, {RUNS}/{point.name}")
    return "\n".join(lines)


def run(sweep: Sweep, reporter: Reporter, *, overwrite: bool) -> list[Row]:
    """Make every run that is not finished, then write the table and the plot. Returns the table's rows.

    A run that fails does not stop the others. Raises InputError where a run that is there already is not the sweep's or
    another sweep is at work in the directory, OutsideError when the disk fails, KeyboardInterrupt at Ctrl-C, when the
    children have ended; the next call goes on.
    """
    with disk_errors(sweep.place):
        sweep.place.mkdir(parents=True, exist_ok=True)
    with places.lock(sweep.place) as held:
        wanted = places.record_of(sweep.grid, sweep.inputs)
        places.prepare(sweep.place, sweep.grid, wanted, overwrite=overwrite)
        outcomes = places.Outcomes(sweep.place)
        _make_runs(sweep, outcomes, reporter, held)
        rows = [_row(sweep, point, outcomes) for point in sweep.grid.points]
        write_bytes(sweep.place / places.TABLE_CSV, csv_table(rows))
        write_bytes(sweep.place / places.TABLE_MD, markdown_table(sweep.grid, rows).encode())
        write_bytes(sweep.place / places.PLOT, sweep_plot(sweep.grid, rows, heading(sweep.grid)))
    return rows


def read_table(sweep: Sweep) -> str:
    """Return the table that the sweep has written."""
    return (sweep.place / places.TABLE_MD).read_text(encoding="utf-8")


def _make_runs(sweep: Sweep, outcomes: places.Outcomes, reporter: Reporter, held: int) -> None:
    numbered = {point.name: (number, point) for number, point in enumerate(sweep.grid.points, 1)}
    commands = {}
    for point in sweep.grid.points:
        run_dir = sweep.run_dir(point)
        if places.is_finished(run_dir):
            places.check_finished(run_dir, point, sweep.inputs)
            continue
        if run_dir.exists() and not places.is_started(run_dir):  # killed before it wrote its first file
            with disk_errors(run_dir):
                shutil.rmtree(run_dir)
        commands[point.name] = sweep.command(point)
    if len(commands) < len(numbered):
        reporter.say(f"{len(numbered) - len(commands)} of {len(numbered)} runs are finished already")

    def started(name: str) -> None:
        number, point = numbered[name]
        outcomes.set(name, jobs=sweep.jobs)
        goes_on = "going on towards" if "--resume" in commands[name] else "training"
        reporter.say(f"{_count(sweep, number)} {point.label}: {goes_on} {point.config.steps:,} steps ...")

    def ended(name: str, end: Ended) -> None:
        number, point = numbered[name]
        failed = _failure(sweep.run_dir(point), end)
        outcomes.set(name, jobs=sweep.jobs, failed=failed, status=end.status)
        reporter.say(f"{_count(sweep, number)} {point.label}: {failed or _result(sweep.run_dir(point))}")

    run_side_by_side(commands, sweep.jobs, keep_open=held, started=started, ended=ended)


def _failure(run_dir: Path, end: Ended) -> str | None:
    """Return why a run failed, in one line, or None where it is finished."""
    if places.is_finished(run_dir):
        return None
    if end.status < 0:
        return f"ended by signal {-end.status}"
    message = end.message.removeprefix(PROGRAM).replace(f" in {run_dir}", "").replace(str(run_dir), run_dir.name)
    return message or f"ended with exit status {end.status}"


def _result(run_dir: Path) -> str:
    summary = read_run(run_dir).summary or {}
    return f"loss {summary['first_loss']:.4f} to {summary['last_loss']:.4f}, {summary['steps_per_second']:.1f} steps/s"


def _row(sweep: Sweep, point: Point, outcomes: places.Outcomes) -> Row:
    run_dir = sweep.run_dir(point)
    jobs = outcomes.jobs(point.name)
    if places.is_finished(run_dir):
        record = read_run(run_dir)
        if record.summary is None or not record.steps:
            raise InputError(f"{run_dir} is damaged (no summary, or no loss): remove that run and call again")
        return Row(point, record, jobs, None, None)
    failed, status = outcomes.failed(point.name)
    return Row(point, None, jobs, failed, status)


def _count(sweep: Sweep, number: int) -> str:
    total = str(len(sweep.grid.points))
    return f"{number:>{len(total)}}/{total}"


def failure(sweep: Sweep, rows: list[Row]) -> InputError | OutsideError | None:
    """Return the error that the sweep ends with, or None where every run is finished.

    It is an InputError (exit status 2) where all that failed did so for their settings, as a run does whose loss is no
    number any more; an OutsideError (3) where any failed otherwise: there, the same call again may finish it.
    """
    failed = [row for row in rows if row.run is None]
    if not failed:
        return None
    settings = all(row.status == InputError.exit_status for row in failed)
    first = f"{failed[0].point.label}: {failed[0].failed}"
    kind = InputError if settings else OutsideError
    return kind(f"{len(failed)} of {len(rows)} runs failed, see {sweep.place / places.TABLE_MD}; the first: {first}")
