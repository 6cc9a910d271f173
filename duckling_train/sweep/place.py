"""A sweep's directory: what is in it, which later grid may go on in it, and that one sweep at a time does.

    sweep.json         the grid and what it is trained on: what a later call is compared with
    points/NAME.json   the settings of each run, as `--config` takes them
    runs/NAME/         the runs, each an ordinary run directory
    outcomes.json      with which --jobs each run was made, and how it failed if it did
    table.md, table.csv, sweep.png

`sweep.json` comes first and goes last: a directory without it is not touched.
"""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL
from duckling_data.base.locks import beside, held
from duckling_data.base.records import short
from duckling_data.base.strict_json import read_json, write_json
from duckling_train.runs.layout import CONFIG, MANIFEST, RUNS
from duckling_train.settings import FIELDS, INPUTS, SETTINGS_LIMIT, check_type, read_settings
from duckling_train.sweep.grid import Grid, Point, said, text

SWEEPS = "sweeps"
SWEEP = "sweep.json"
POINTS = "points"
OUTCOMES = "outcomes.json"
TABLE_CSV = "table.csv"
TABLE_MD = "table.md"
PLOT = "sweep.png"
CONTENTS = (SWEEP, POINTS, RUNS, OUTCOMES, TABLE_CSV, TABLE_MD, PLOT)
FORMAT_VERSION = 1
ELSEWHERE = "give --name or --out another place"
SHOWN = 4
"""Points that an error names, at most."""

Record = dict[str, Any]


def locate(workspace: Path, out: Path | None, name: str | None) -> Path:
    """Return the directory: `out`, or `sweeps/name` in the workspace. Raises InputError for a name with a path."""
    if out is not None:
        return out
    if name is None or Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"--name is {name!r}; it must be one file name (--out takes a path)")
    return workspace / SWEEPS / name


def record_of(grid: Grid, inputs: Record) -> Record:
    """Return the content of `sweep.json`: what is swept, all else that is fixed, and the digests of the data."""
    settings = grid.points[0].config.resolved()
    fixed = {name: value for name, value in settings.items() if name not in grid.swept}
    record = {"format": FORMAT_VERSION, "swept": grid.swept, "fixed": fixed, INPUTS: inputs}
    return dict(json.loads(json.dumps(record)))  # as it comes back from the file: lists, no tuples


def read_record(place: Path) -> Record | None:
    """Return the `sweep.json` of an earlier sweep in `place`, or None without one. Raises InputError if damaged."""
    path = place / SWEEP
    if not path.is_file():
        return None
    record = read_json(path, SETTINGS_LIMIT)
    parts = ("swept", "fixed", INPUTS)
    if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in parts):
        raise InputError(f"{path} is not a sweep's: give --overwrite to replace the sweep, or {ELSEWHERE}")
    if record.get("format") != FORMAT_VERSION:
        raise InputError(f"{path} has format {short(record.get('format'))}, expected {FORMAT_VERSION}: {ELSEWHERE}")
    for name, values in record["swept"].items():
        if name not in FIELDS or not isinstance(values, list) or not values:
            raise InputError(f"{path} sweeps {short(name)} over {short(values)}: it is not a sweep's; {ELSEWHERE}")
        for value in values:
            check_type(path, name, value)
    for name in record["fixed"].keys() & FIELDS.keys():
        check_type(path, name, record["fixed"][name])
    return record


def refusal(place: Path, earlier: Record | None, wanted: Record) -> str | None:
    """Return why the sweep `wanted` may not go on in `place`, or None where it may.

    It may where nothing is, and where an earlier sweep on the same data is whose points are all in the new grid.
    """
    if place.is_symlink() or place.exists():
        if not place.is_dir():
            return f"{place} is not a directory: {ELSEWHERE}"
        entries = [entry.name for entry in place.iterdir() if not entry.name.endswith(PARTIAL)]
        if entries and SWEEP not in entries:
            return f"{place} exists and is not a sweep (no {SWEEP}): {ELSEWHERE}"
    if earlier is None:
        return None
    if missing := _missing(earlier, wanted):
        return f"{place} holds another sweep: it has {missing}. Add what is missing, {ELSEWHERE}, or --overwrite"
    if earlier[INPUTS] != wanted[INPUTS]:
        return f"{place} was trained on other data than the workspace now holds: {ELSEWHERE}, or --overwrite"
    return None


def _missing(earlier: Record, wanted: Record) -> str:
    """Return what the earlier grid has and the wanted one lacks, as `steps 200 (here 100)`; both are whole products."""
    parts = []
    for name in FIELDS:
        before, now = _values(earlier, name), _values(wanted, name)
        if lost := [value for value in before if value not in now]:
            here = ", ".join(text(name, value) for value in now)
            parts += [f"{said({name: value})} (here {here})" for value in lost]
    more = f" and {len(parts) - SHOWN:,} more" if len(parts) > SHOWN else ""
    return " and ".join(parts[:SHOWN]) + more


def _values(record: Record, name: str) -> list[Any]:
    """Return a setting's values in a record; a setting that is younger than the record had its default."""
    return list(record["swept"].get(name, [record["fixed"].get(name, FIELDS[name].default)]))


def prepare(place: Path, grid: Grid, wanted: Record, *, overwrite: bool) -> None:
    """Make the directory and write the grid into it; with `overwrite`, remove an earlier sweep first."""
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        if overwrite:
            _remove_sweep(place)
    write_json(place / SWEEP, wanted)
    with disk_errors(place):
        (place / POINTS).mkdir(exist_ok=True)
        (place / RUNS).mkdir(exist_ok=True)
    for point in grid.points:
        write_json(place / POINTS / f"{point.name}.json", point.config.resolved())


def _remove_sweep(place: Path) -> None:
    """Remove a sweep's own files, `sweep.json` last: until then the directory is known as a sweep's."""
    for name in reversed(CONTENTS):
        path, doomed = place / name, place / (name + PARTIAL)
        if doomed.is_dir():  # from a removal that was interrupted
            shutil.rmtree(doomed)
        if path.is_dir():
            path.rename(doomed)  # at once: no run is ever left there with half of its files
            shutil.rmtree(doomed)
        else:
            path.unlink(missing_ok=True)


def lock(place: Path) -> AbstractContextManager[int]:
    """Hold the directory for one sweep and yield the lock's file descriptor; runs that inherit it hold it, too.

    So a second sweep is refused as long as any run of a first one, even one whose sweep was killed, still writes.
    Raises InputError where it is held.
    """
    return held(beside(place), place, waiting=None)


def is_finished(run_dir: Path) -> bool:
    """Return whether a run is whole: its manifest comes last."""
    return (run_dir / MANIFEST).is_file()


def is_started(run_dir: Path) -> bool:
    """Return whether `--resume` can go on with a run: its settings are written."""
    return (run_dir / CONFIG).is_file()


def check_finished(run_dir: Path, point: Point, inputs: Record) -> None:
    """Raise InputError unless the finished run in `run_dir` is the point's: its settings, on the sweep's data."""
    found = read_settings(run_dir / CONFIG)
    for name, value in point.config.resolved().items():
        left_open = value is None or value == "auto"  # the run's own record says what it became
        if name in FIELDS and not left_open and found.get(name) != value:
            raise InputError(f"{run_dir} has {name} {found.get(name)!r}, the sweep's {value!r}: remove that run")
    manifest = read_json(run_dir / MANIFEST)
    if {name: manifest.get(name) for name in inputs} != inputs:
        raise InputError(f"{run_dir} was trained on other data than the sweep's: remove that run")


class Outcomes:
    """How each run was made and ended, in `outcomes.json`: `jobs`, and where it failed `failed`, why, and `status`."""

    def __init__(self, place: Path) -> None:
        self.path = place / OUTCOMES
        content = read_json(self.path) if self.path.is_file() else {}
        if not isinstance(content, dict) or not all(_is_outcome(outcome) for outcome in content.values()):
            raise InputError(f"{self.path} is not a sweep's: remove it and call again")
        self._outcomes: dict[str, Record] = content

    def set(self, name: str, *, jobs: int, failed: str | None = None, status: int = 0) -> None:
        """Record with how many side by side the run `name` was made, why it failed, and its exit status."""
        self._outcomes[name] = {"jobs": jobs, "failed": failed, "status": status}
        write_json(self.path, self._outcomes)

    def jobs(self, name: str) -> int | None:
        """Return with how many side by side a run was made, None where that is not known."""
        return self._outcomes.get(name, {}).get("jobs")

    def failed(self, name: str) -> tuple[str, int]:
        """Return why an unfinished run failed, and its exit status."""
        outcome = self._outcomes.get(name, {})
        return str(outcome.get("failed") or "not finished"), int(outcome.get("status", 0))


def _is_outcome(value: Any) -> bool:
    """Whether a value of `outcomes.json` is as `Outcomes.set` writes it."""
    kinds: dict[str, tuple[type, ...]] = {"jobs": (int,), "failed": (str, type(None)), "status": (int,)}
    return (
        isinstance(value, dict)
        and value.keys() == kinds.keys()
        and all(isinstance(value[name], kind) and not isinstance(value[name], bool) for name, kind in kinds.items())
    )
