"""A sweep from its grid to its table and plot: each run a process of `duckling-train`, finished ones left alone.

A run is what the command alone would give: a child process gets the point's settings as `--config` and nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from duckling_data.base.children import Ended, run_commands
from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.executor import LocalExecutor, default_workers
from duckling_data.base.files import write_bytes
from duckling_data.base.locks import beside, held
from duckling_data.base.progress import Reporter
from duckling_data.base.records import plain
from duckling_data.base.strict_json import write_json
from duckling_train.data import open_workspace
from duckling_train.processes import process_count
from duckling_train.runs.layout import CONFIG, RUNS, has_manifest, locate
from duckling_train.runs.read import read_run
from duckling_train.sweep import layout
from duckling_train.sweep.grid import Grid, Lists, Point, grid_name, make_grid
from duckling_train.sweep.layout import Outcome, SweepRecord
from duckling_train.sweep.table import Row, csv_table, heading, markdown_table, sweep_plot

SWEEPS = "sweeps"
MADE = (layout.TABLE_MD, layout.TABLE_CSV, layout.PLOT)
"""What a person looks at."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that may begin: its grid, where it goes, and what it is trained on."""

    grid: Grid
    workspace: Path
    folder: Path
    jobs: int
    inputs: dict[str, Any]

    def run_dir(self, point: Point) -> Path:
        """Return a point's run directory."""
        return self.folder / RUNS / point.name

    def is_started(self, point: Point) -> bool:
        """Return whether a point's run can be resumed: its settings are written first."""
        return (self.run_dir(point) / CONFIG).is_file()

    def is_finished(self, point: Point) -> bool:
        """Return whether a point's run is whole: its manifest is written last."""
        return has_manifest(self.run_dir(point))

    def command(self, point: Point) -> list[str]:
        """Return the command that makes the point's run, or resumes it."""
        program = [sys.executable, "-P", "-m", "duckling_train", "-w", str(self.workspace), "--quiet"]
        if self.is_started(point):
            return [*program, "--resume", str(self.run_dir(point))]
        config = self.folder / layout.POINTS / f"{point.name}.json"
        return [*program, "--out", str(self.run_dir(point)), "--config", str(config)]


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

    Raises InputError for settings out of range, a workspace that fits none of the points, a directory in which the
    sweep may not be made, and a call under torchrun.
    """
    if process_count() > 1:
        raise InputError("a sweep starts processes of its own: call it without torchrun, with --jobs")
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; it must be at least 1")
    grid = make_grid(lists, preset=preset, file=file)
    folder = out or locate(workspace, None, grid_name(grid) if name is None else name, SWEEPS)
    earlier = None if overwrite else layout.read_sweep(folder)
    if (threads := _threads(grid, earlier, jobs)) is not None:
        grid = make_grid({**lists, "threads": (threads,)}, preset=preset, file=file)
    sweep = Sweep(grid, workspace, folder, jobs, _inputs(workspace, grid))
    if reason := layout.refusal(folder, earlier, layout.record_of(grid, sweep.inputs)):
        raise InputError(reason)
    return sweep


def _threads(grid: Grid, earlier: SweepRecord | None, jobs: int) -> int | None:
    """Return the CPU threads of each run where the user gave none: those of the earlier sweep, else a fair share.

    They split sums and so shape a run's bits: runs of one sweep have the same, whatever its --jobs are later.
    """
    if any(value is not None for value in grid.values("threads")):
        return None
    if earlier is not None:
        return cast(int | None, earlier.fixed.get("threads"))
    side_by_side = min(jobs, len(grid.points))
    return max(1, default_workers() // side_by_side) if side_by_side > 1 else None


def _inputs(workspace: Path, grid: Grid) -> dict[str, Any]:
    """Return the digests of the workspace's data. Raises InputError where the data fit none of the points."""
    shapes = {(point.config.n_positions, point.config.vocab_size): point.config for point in grid.points}
    *others, last = shapes.values()
    for config in others:
        with contextlib.suppress(InputError):
            return open_workspace(workspace, config).record()
    return open_workspace(workspace, last).record()


def describe(sweep: Sweep) -> str:
    """Return what the sweep would do: a line for each point, with its parameters, its directory and its state."""
    lines = [heading(sweep.grid), f"{sweep.jobs} at a time, in {sweep.folder}:"]
    for number, point in enumerate(sweep.grid.points, 1):
        state = "would train"
        if sweep.is_started(point):
            state = "is finished" if sweep.is_finished(point) else "would be resumed"
        told = f"{point.config.parameters:,} parameters, {state}, {RUNS}/{point.name}"
        lines.append(f"{_count(number, len(sweep.grid.points))} {point.label}: {told}")
    return "\n".join(lines)


def run(sweep: Sweep, reporter: Reporter, *, overwrite: bool) -> list[Row]:
    """Make every run that is not finished, then write the table and the plot. Returns the table's rows.

    A run that fails does not stop the others; the next call makes what is missing. Raises InputError where a run that
    is there already is not the sweep's or another sweep is at work in the directory, OutsideError when the disk fails.
    """
    with disk_errors(sweep.folder):
        sweep.folder.mkdir(parents=True, exist_ok=True)
    # The runs inherit the lock: a second sweep is refused as long as a run of a killed one still writes.
    with held(beside(sweep.folder), sweep.folder, waiting=None) as lock:
        layout.prepare(sweep.folder, sweep.grid, layout.record_of(sweep.grid, sweep.inputs), overwrite=overwrite)
        outcomes = layout.read_outcomes(sweep.folder)
        _make_runs(sweep, outcomes, reporter, lock)
        rows = [_row(sweep, point, outcomes) for point in sweep.grid.points]
        write_bytes(sweep.folder / layout.TABLE_CSV, csv_table(rows))
        write_bytes(sweep.folder / layout.TABLE_MD, markdown_table(sweep.grid, rows).encode())
        write_bytes(sweep.folder / layout.PLOT, sweep_plot(sweep.grid, rows, heading(sweep.grid)))
    return rows


def _make_runs(sweep: Sweep, outcomes: dict[str, Outcome], reporter: Reporter, lock: int) -> None:
    points = [(number, point) for number, point in enumerate(sweep.grid.points, 1) if not _is_made(sweep, point)]
    total = len(sweep.grid.points)
    if len(points) < total:
        reporter.say(f"{total - len(points)} of {total} runs are finished already")

    def note(number: int, point: Point, outcome: Outcome, text: str) -> None:
        outcomes[point.name] = outcome
        write_json(sweep.folder / layout.OUTCOMES, plain(outcomes))
        reporter.say(f"{_count(number, total)} {point.label}: {text}")

    def commands() -> Iterator[list[str]]:
        for number, point in points:
            command = sweep.command(point)
            begins = "resuming, up to" if "--resume" in command else "training"
            note(number, point, Outcome(sweep.jobs), f"{begins} {point.config.steps:,} steps ...")
            yield command

    with contextlib.closing(run_commands(LocalExecutor(sweep.jobs), commands(), lock)) as results:
        for index, end in results:
            number, point = points[index]
            failed = told = _failure(sweep, point, end)
            if told is None:
                made = read_run(sweep.run_dir(point)).summary or {}
                told = f"loss {made['first_loss']:.4f} to {made['last_loss']:.4f}, "
                told += f"{made['steps_per_second']:.1f} steps/s"
            note(number, point, Outcome(sweep.jobs, failed, end.status), told)


def _is_made(sweep: Sweep, point: Point) -> bool:
    """Return whether a point's run is finished. Removes what a run left that was killed before its first file."""
    run_dir = sweep.run_dir(point)
    if sweep.is_finished(point):
        layout.check_finished(run_dir, point, sweep.inputs)
        return True
    if run_dir.exists() and not sweep.is_started(point):
        with disk_errors(run_dir):
            shutil.rmtree(run_dir)
    return False


def _failure(sweep: Sweep, point: Point, end: Ended) -> str | None:
    """Return why a run failed, in one line, or None where it is finished."""
    if sweep.is_finished(point):
        return None
    if end.status < 0:
        return f"ended by signal {-end.status}"
    message, run_dir = end.message.removeprefix("duckling-train: "), sweep.run_dir(point)
    message = message.replace(f" in {run_dir}", "").replace(str(run_dir), run_dir.name)
    return message or f"ended with exit status {end.status}"


def _row(sweep: Sweep, point: Point, outcomes: dict[str, Outcome]) -> Row:
    outcome = outcomes.get(point.name, Outcome())
    if not sweep.is_finished(point):
        return Row(point, None, Outcome(outcome.jobs, outcome.failed or "not finished", outcome.status))
    record = read_run(sweep.run_dir(point))
    if record.summary is None or not record.steps:
        raise InputError(f"{sweep.run_dir(point)}: has no summary, or no loss; remove it and call again.")
    return Row(point, record, Outcome(outcome.jobs))


def _count(number: int, total: int) -> str:
    return f"{number:>{len(str(total))}}/{total}"


def failure(sweep: Sweep, rows: list[Row]) -> InputError | OutsideError | None:
    """Return the error that the sweep ends with, or None where every run is finished.

    It is an InputError (exit status 2) where all that failed did so for their settings, as with a loss that is not
    finite; an OutsideError (3) where any failed otherwise: the same call again may then finish it.
    """
    failed = [row for row in rows if row.run is None]
    if not failed:
        return None
    settings = all(row.outcome.status == InputError.exit_status for row in failed)
    first = f"{failed[0].point.label}: {failed[0].outcome.failed}"
    kind = InputError if settings else OutsideError
    return kind(f"{len(failed)} of {len(rows)} runs failed, see {sweep.folder / layout.TABLE_MD}; the first: {first}")
