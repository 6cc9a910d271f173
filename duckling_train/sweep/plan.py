"""A sweep before it begins: its grid, where it goes, what it is trained on, and how each of its runs is made."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.executor import default_workers
from duckling_data.base.files import remove
from duckling_data.base.records import short
from duckling_train.data import fitting, open_workspace
from duckling_train.processes import process_count
from duckling_train.runs.layout import CONFIG, RUNS, locate, read_manifest
from duckling_train.runs.read import RunRecord, read_run
from duckling_train.sweep import layout
from duckling_train.sweep.cluster import Cluster
from duckling_train.sweep.grid import Grid, Lists, Point, grid_name, make_grid
from duckling_train.sweep.table import heading


@dataclass(frozen=True)
class Sweep:
    """A sweep that may begin: its grid, where it goes, and what it is trained on."""

    grid: Grid
    workspace: Path
    folder: Path
    jobs: int
    inputs: dict[str, Any]
    cluster: Cluster | None = None
    """Where its runs are made, if not on this machine."""

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

    def arguments(self, point: Point) -> list[str]:
        """Return the arguments of `duckling-train` that make the point's run, or resume it."""
        common = ["-w", str(self.workspace), "--quiet"]
        if self.is_started(point):
            return [*common, "--resume", str(self.run_dir(point))]
        config = self.folder / layout.POINTS / f"{point.name}.json"
        return [*common, "--out", str(self.run_dir(point)), "--config", str(config)]

    def clear(self, point: Point) -> None:
        """Remove what a run left that was killed before its first file."""
        if not self.is_started(point):
            remove(self.run_dir(point))


def plan(
    lists: Lists, workspace: Path, out: Path | None, name: str | None, jobs: int, *, preset: str, file: Path | None,
    overwrite: bool, cluster: Cluster | None = None,
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
        if cluster is not None:
            share = max(1, int(cluster.cpus or 1))
        threads = share if earlier is None else earlier.fixed.get("threads")
        grid = make_grid({**lists, "threads": (threads,)}, preset=preset, file=file, sizes=sizes)
    inputs = _inputs(workspace, grid)
    if cluster is not None:  # whose workers have another current folder
        cluster, workspace, folder = cluster.for_grid(grid), workspace.absolute(), folder.absolute()
    sweep = Sweep(grid, workspace, folder, jobs, inputs, cluster)
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
    lines = [heading(sweep.grid), f"{sweep.cluster or f'{sweep.jobs} at a time'}, in {sweep.folder}:"]
    for point in sweep.grid.points:
        state = "would be resumed" if sweep.is_started(point) else "would train"
        if read_manifest(sweep.run_dir(point)):
            state = "is finished"
        told = f"{point.config.parameters:,} parameters, {state}, {RUNS}/{point.name}"
        lines.append(f"{sweep.count(point)}: {told}")
    return "\n".join(lines)
