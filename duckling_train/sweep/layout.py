"""A sweep's directory: what is in it, and which later grid may add to it.

    sweep.json         the grid and what it is trained on: what a later call is compared with
    points/NAME.json   the settings of each run, as `--config` takes them
    runs/NAME/         the runs, each an ordinary run directory
    outcomes.json      with which --jobs each run was made, and how it failed if it did
    table.md, table.csv, sweep.png

`sweep.json` is written first and removed last: a directory without it is not touched.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL, own_folder, remove
from duckling_data.base.records import plain, read_record, short
from duckling_data.base.strict_json import write_json
from duckling_train.runs.layout import RUNS
from duckling_train.settings import FIELDS, SETTINGS_LIMIT, check_type
from duckling_train.sweep.grid import Grid, described, text

SWEEP = "sweep.json"
POINTS = "points"
OUTCOMES = "outcomes.json"
TABLE_CSV = "table.csv"
TABLE_MD = "table.md"
PLOT = "sweep.png"
CONTENTS = (SWEEP, POINTS, RUNS, OUTCOMES, TABLE_CSV, TABLE_MD, PLOT)
FORMAT_VERSION = 1
ELSEWHERE = "give another --name or --out"


class SweepRecord(msgspec.Struct, frozen=True):
    """The content of `sweep.json`; settings as JSON has them, lists for tuples."""

    format: int
    swept: dict[str, Annotated[list[Any], msgspec.Meta(min_length=1)]]
    """The settings that take several values."""
    fixed: dict[str, Any]
    """All other settings."""
    inputs: dict[str, Any]
    """The digests of the data."""

    def values(self, name: str) -> list[Any]:
        """Return a setting's values; a setting that is younger than the record had its default."""
        return self.swept.get(name, [self.fixed.get(name, plain(FIELDS[name].default))])


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a run of the sweep was made, and how it ended."""

    jobs: int | None = None
    """How many ran side by side; None where that is not known."""
    failed: str | None = None
    """Why it failed; None where it did not, and while it runs."""
    status: int = 0
    """Its exit status."""


def record_of(grid: Grid, inputs: dict[str, Any]) -> SweepRecord:
    """Return the record of a grid that is trained on data with these digests."""
    settings = grid.points[0].config.resolved()
    fixed = {name: value for name, value in settings.items() if name not in grid.swept}
    return SweepRecord(FORMAT_VERSION, json.loads(json.dumps(grid.swept)), fixed, inputs)  # lists, as when read again


def read_sweep(folder: Path) -> SweepRecord | None:
    """Return the record of an earlier sweep in `folder`, or None without one. Raises InputError if it is damaged."""
    path = folder / SWEEP
    if not path.is_file():
        return None
    damaged = f"expected a sweep's record; {ELSEWHERE}, or --overwrite to replace the sweep."
    record = read_record(path, SweepRecord, damaged, SETTINGS_LIMIT)
    if record.format != FORMAT_VERSION:
        raise InputError(f"{path}: has format {record.format}; expected {FORMAT_VERSION}; {ELSEWHERE}.")
    if unknown := record.swept.keys() - FIELDS.keys():
        raise InputError(f"{path}: has an unknown setting {short(min(unknown))}; {damaged}")
    fixed = {name: [value] for name, value in record.fixed.items() if name in FIELDS}
    for name, values in (*record.swept.items(), *fixed.items()):
        for value in values:
            check_type(path, name, value)
    return record


def refusal(folder: Path, earlier: SweepRecord | None, wanted: SweepRecord) -> str | None:
    """Return why the sweep `wanted` may not be made in `folder`, or None where it may.

    It may in an empty directory, and where an earlier sweep on the same data has no point that the new grid lacks.
    """
    if folder.is_symlink() or folder.exists():
        if not folder.is_dir():
            return f"{folder}: not a directory; {ELSEWHERE}."
        entries = [entry.name for entry in folder.iterdir() if not entry.name.endswith(PARTIAL)]
        if entries and SWEEP not in entries:
            return f"{folder}: exists and is not a sweep (no {SWEEP}); {ELSEWHERE}."
    if earlier is None:
        return None
    if missing := _missing(earlier, wanted):
        return f"{folder}: another sweep, it has {missing}; add what is missing, {ELSEWHERE}, or --overwrite."
    if earlier.inputs != wanted.inputs:
        return f"{folder}: was trained on other data than the workspace now holds; {ELSEWHERE}, or --overwrite."
    return None


def _missing(earlier: SweepRecord, wanted: SweepRecord) -> str:
    """Return what the earlier grid has and the wanted one lacks, as `steps 200 (here 100)`; both are whole products."""
    parts = []
    for name in FIELDS:
        now = wanted.values(name)
        here = ", ".join(text(name, value) for value in now)
        lost = [value for value in earlier.values(name) if value not in now]
        parts += [f"{described({name: value})[:60]} (here {here})" for value in lost]
    return " and ".join(parts[:4]) + (f" and {len(parts) - 4:,} more" if len(parts) > 4 else "")


def prepare(folder: Path, grid: Grid, wanted: SweepRecord, *, overwrite: bool) -> None:
    """Write the grid into the directory; with `overwrite`, remove an earlier sweep first."""
    with disk_errors(folder):
        for name in reversed(CONTENTS) if overwrite else ():  # sweep.json last: until then it is known as a sweep
            path, doomed = folder / name, folder / (name + PARTIAL)
            remove(doomed)  # from a removal that was interrupted
            if os.path.lexists(path):
                path.rename(doomed)  # at once: no run is ever left there with half of its files
                remove(doomed)
    write_json(folder / SWEEP, plain(wanted))
    for name in (POINTS, RUNS):
        own_folder(folder, name)
    for point in grid.points:
        write_json(folder / POINTS / f"{point.name}.json", point.config.resolved())


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """Return how each run that was begun was made and ended. Raises InputError for a damaged file."""
    path = folder / OUTCOMES
    if not path.is_file():
        return {}
    return read_record(path, dict[str, Outcome], "expected a sweep's outcomes; remove it and call again.")
