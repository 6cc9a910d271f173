"""A sweep from its grid to its table and plot: each run a process of `duckling-train`, finished ones left alone.

A run is what the command alone would give: a child process gets the point's settings as `--config` and nothing else.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.executor import Ended, LocalExecutor, default_workers, run_commands
from duckling_data.base.files import refuse_linked, remove, write_bytes
from duckling_data.base.locks import beside, held
from duckling_data.base.progress import Reporter
from duckling_data.base.records import plain, short
from duckling_data.base.strict_json import write_json
from duckling_train.data import fitting, open_workspace
from duckling_train.engines import FAST
from duckling_train.processes import process_count
from duckling_train.runs.layout import CONFIG, RUNS, locate, read_manifest
from duckling_train.runs.read import RunRecord, read_run
from duckling_train.sweep import layout
from duckling_train.sweep.grid import Grid, Lists, Point, grid_name, make_grid
from duckling_train.sweep.layout import Outcome
from duckling_train.sweep.table import Row, csv_table, heading, markdown_table, sweep_plot

MADE = (layout.TABLE_MD, layout.TABLE_CSV, layout.PLOT)


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

    def record(self, point: Point) -> RunRecord | None:
        """Return a point's finished run, or None. Raises InputError if it is damaged or has other settings or data."""
        run_dir = self.run_dir(point)
        if not read_manifest(run_dir):
            return None
        record = read_run(run_dir)
        for name, value in point.config.resolved().items():
            found, left_open = record.settings.get(name), value in (None, "auto")  # the run says what it became
            if not left_open and found != value:
                raise InputError(f"{run_dir}: has {name} {short(found)}; expected the sweep's {value!r}; remove it.")
        if {name: record.inputs.get(name) for name in self.inputs} != self.inputs:
            raise InputError(f"{run_dir}: was trained on other data than the sweep's; remove it.")
        if record.summary is None or not record.steps:
            raise InputError(f"{run_dir}: has no summary, or no loss; remove it and call again.")
        return record

    def count(self, point: Point) -> str:
        """Return a point's number and label, as `2/4 layers 1, seed 2`."""
        total = len(self.grid.points)
        return f"{point.number:>{len(str(total))}}/{total} {point.label}"

    def command(self, point: Point) -> list[str]:
        """Return the command that makes the point's run, or resumes it."""
        program = [sys.executable, "-P", "-m", "duckling_train", "-w", str(self.workspace), "--quiet"]
        if self.is_started(point):
            return [*program, "--resume", str(self.run_dir(point))]
        config = self.folder / layout.POINTS / f"{point.name}.json"
        return [*program, "--out", str(self.run_dir(point)), "--config", str(config)]


def plan(
    lists: Lists, workspace: Path, out: Path | None, name: str | None, jobs: int, *, preset: str, file: Path | None,
    overwrite: bool,
) -> Sweep:  # fmt: skip
    """Return the sweep of a grid, in `out` or under `name` in the workspace, by default the grid's own. Writes nothing.

    Raises InputError for unfit settings, a workspace that fits no point, and a directory that the sweep may not have.
    """
    if process_count() > 1:
        raise InputError("a sweep starts processes of its own: call it without torchrun, with --jobs")
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; it must be at least 1")
    sizes = fitting(workspace)
    grid = make_grid(lists, preset=preset, file=file, sizes=sizes)
    folder = out or locate(workspace, None, grid_name(grid) if name is None else name, "sweeps")
    earlier = None if overwrite else layout.read_sweep(folder)
    if grid.values("threads") == (None,):
        # They split sums and so shape a run's bits: runs of one sweep have the same, whatever its --jobs are later.
        side_by_side = min(jobs, len(grid.points))
        share = max(1, default_workers() // side_by_side) if side_by_side > 1 else None
        threads = share if earlier is None else earlier.fixed.get("threads")
        grid = make_grid({**lists, "threads": (threads,)}, preset=preset, file=file, sizes=sizes)
    sweep = Sweep(grid, workspace, folder, jobs, _inputs(workspace, grid))
    if reason := layout.refusal(folder, earlier, layout.record_of(grid, sweep.inputs)):
        raise InputError(reason)
    return sweep


def _inputs(workspace: Path, grid: Grid) -> dict[str, Any]:
    """Return the digests of the workspace's data. Raises InputError where the data fit none of the points."""
    shapes = {(point.config.n_positions, point.config.vocab_size): point.config for point in grid.points}
    *others, last = shapes.values()
    for config in others:
        with contextlib.suppress(InputError):
            return open_workspace(workspace, config).record()
    return open_workspace(workspace, last).record()


def describe(sweep: Sweep) -> str:
    """Return what the sweep would do: a line for each point."""
    lines = [heading(sweep.grid), f"{sweep.jobs} at a time, in {sweep.folder}:"]
    for point in sweep.grid.points:
        state = "would be resumed" if sweep.is_started(point) else "would train"
        if read_manifest(sweep.run_dir(point)):
            state = "is finished"
        told = f"{point.config.parameters:,} parameters, {state}, {RUNS}/{point.name}"
        lines.append(f"{sweep.count(point)}: {told}")
    return "\n".join(lines)


def run(sweep: Sweep, reporter: Reporter, *, overwrite: bool) -> list[Row]:
    """Make every run that is not finished, then write the table and the plot. Returns the table's rows.

    A run that fails does not stop the others. Raises InputError where a run that is there already is not the sweep's or
    another sweep is at work in the directory, OutsideError when the disk fails.
    """
    with disk_errors(sweep.folder):
        sweep.folder.mkdir(parents=True, exist_ok=True)
    # The runs inherit the lock: a second sweep is refused as long as a run of a killed one still writes.
    with held(beside(sweep.folder), sweep.folder, waiting=None) as lock:
        layout.prepare(sweep.folder, sweep.grid, layout.record_of(sweep.grid, sweep.inputs), overwrite=overwrite)
        outcomes = layout.read_outcomes(sweep.folder)
        _make_runs(sweep, outcomes, reporter, lock)
        rows = [Row(point, sweep.record(point), outcomes.get(point.name, Outcome())) for point in sweep.grid.points]
        write_bytes(sweep.folder / layout.TABLE_CSV, csv_table(rows))
        write_bytes(sweep.folder / layout.TABLE_MD, markdown_table(sweep.grid, rows).encode())
        write_bytes(sweep.folder / layout.PLOT, sweep_plot(sweep.grid, rows, heading(sweep.grid)))
    return rows


def _make_runs(sweep: Sweep, outcomes: dict[str, Outcome], reporter: Reporter, lock: int) -> None:
    points = [point for point in sweep.grid.points if sweep.record(point) is None]
    total = len(sweep.grid.points)
    for run_dir in map(sweep.run_dir, points):
        if not (run_dir / CONFIG).is_file():  # of a run that was killed before its first file
            remove(run_dir)
        refuse_linked(sweep.folder, f"{RUNS}/{run_dir.name}")
    if len(points) < total:
        reporter.say(f"{total - len(points)} of {total} runs are finished already")

    def note(point: Point, outcome: Outcome, text: str) -> None:
        outcomes[point.name] = outcome
        write_json(sweep.folder / layout.OUTCOMES, plain(outcomes))
        reporter.say(f"{sweep.count(point)}: {text}")

    for group in _together(points):
        from duckling_train.runs.many import train_many

        note(group[0], Outcome(len(group)), f"training {group[0].config.steps:,} steps, {len(group)} runs at once ...")
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
            command = sweep.command(point)
            begins = "resuming, up to" if "--resume" in command else "training"
            note(point, Outcome(sweep.jobs), f"{begins} {point.config.steps:,} steps ...")
            yield command

    with contextlib.closing(run_commands(LocalExecutor(sweep.jobs), commands(), lock)) as results:
        for number, end in results:
            point = points[number]
            if (record := sweep.record(point)) is not None:
                note(point, Outcome(sweep.jobs), _told(record.summary or {}))
            else:
                failed = _failure(sweep.run_dir(point), end)
                note(point, Outcome(sweep.jobs, failed, end.status), failed)


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
