"""The table of runs: columns, each a function of a run, as aligned text, Markdown or CSV; and what `compare` shows."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from duckling_data.base.errors import InputError, printable
from duckling_data.base.files import write_bytes
from duckling_train.config import ADDED, NOT_IN_THE_NAME, word
from duckling_train.plot import DATA_DIFFER, Curve, overlay, running_mean
from duckling_train.runs.read import RunRecord, dataset_digest, read_run, same_data
from duckling_train.settings import FIELDS

R = TypeVar("R")
NO_COLUMN = ("steps", "device", "n_inner")
"""Settings that have a column whether they differ or not, and what follows from another setting."""
NO_LEARNING = {"engine", "logging_steps", *NOT_IN_THE_NAME} - {"steps", "seed"}
"""Settings without effect on what a run learns."""
DYNAMICS = {"centroid": "centroid_norm", "radius": "radius_mean", "coherence": "coherence", "dead mass": "dead_mass"}
"""What tables show of the dead rows: headings, and the columns of `dynamics.jsonl`."""
NOTHING = "-"
NUMBER = re.compile(r"-|-?[\d,.]+(e-\d+| of [\d,]+)?")


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of a table of runs."""

    heading: str
    cell: Callable[[R], Any]
    """What the table says of a run: text, or a number in the format `spec`; None is nothing."""
    spec: str = ""

    def text(self, run: R, nothing: str) -> str:
        """Return the cell of a run as text."""
        value = self.cell(run)
        return nothing if value is None else value if isinstance(value, str) else format(value, self.spec)


def cells(columns: Sequence[Column[R]], runs: Iterable[R], nothing: str = "") -> list[list[str]]:
    """Return a table as text: the headings, then a row a run."""
    return [
        [column.heading for column in columns],
        *([column.text(run, nothing) for column in columns] for run in runs),
    ]


def aligned(columns: Sequence[Column[R]], runs: Iterable[R]) -> str:
    """Return the table as lines: columns two spaces apart, numbers to the right, all else to the left."""
    rows = cells(columns, runs, NOTHING)
    forms = []
    for heading, *column in zip(*rows, strict=True):
        align = ">" if all(map(NUMBER.fullmatch, column)) else "<"
        forms.append(f"{{:{align}{max(map(len, (heading, *column)))}}}")
    return "\n".join("  ".join(forms).format(*row).rstrip() for row in rows)


def markdown(columns: Sequence[Column[R]], runs: Iterable[R]) -> str:
    """Return the table in Markdown."""
    head, *rows = cells(columns, runs)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def csv_bytes(columns: Sequence[Column[R]], runs: Iterable[R]) -> bytes:
    """Return the table as CSV (UTF-8): a header, then a line a run."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(cells(columns, runs))
    return buffer.getvalue().encode()


def summarized(name: str) -> Callable[[RunRecord], Any]:
    """Return the function that gives a figure of a run's summary, or None."""
    return lambda run: (run.summary or {}).get(name)


def validation_loss(run: RunRecord) -> float | None:
    """Return the run's last validation loss (nats a token), None where it was not evaluated."""
    return run.evaluations[-1]["loss"] if run.evaluations else None


def dynamics_value(name: str) -> Callable[[RunRecord], Any]:
    """Return the function that gives the last value of a column of a run's `dynamics.jsonl`, or None."""
    return lambda run: (run.last_dynamics or {}).get(name)


def comparison(run_dirs: Sequence[Path], out: Path) -> tuple[list[RunRecord], bool]:
    """Return the runs, each under a name of its own, and whether their losses were plotted to `out` (a PNG).

    They are not where no run has logged one. Raises InputError for a damaged run and an `out` that cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise InputError(f"--out is {out}; the plot is a PNG, so its name must end in .png")
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"--out is {out}; it must be a file in a directory that is there and can be written to")
    runs = [read_run(path) for path in run_dirs]
    counts = Counter(run.name for run in runs)
    runs = [  # those of one name are told apart by the paths that they were given by
        run if counts[run.name] == 1 else dataclasses.replace(run, name=str(path))
        for run, path in zip(runs, run_dirs, strict=True)
    ]
    runs = [dataclasses.replace(run, name=printable(run.name)) for run in runs]
    drawn = [run for run in runs if run.losses]
    if drawn:
        labels = [label for run, label in zip(runs, plot_labels(runs), strict=True) if run.losses]
        curves = [Curve(run.steps, run.losses) for run in drawn]
        write_bytes(out, overlay(curves, labels, same_data=same_data(drawn)))
    return runs, bool(drawn)


def differing(runs: Sequence[RunRecord]) -> list[str]:
    """Return the settings that are not equal in all runs, in their own order, but for NO_COLUMN."""
    names = dict.fromkeys((*FIELDS, *(name for run in runs for name in run.settings)))
    return [name for name in names if name not in NO_COLUMN and _differs(runs, name)]


def columns_of_runs(runs: Sequence[RunRecord]) -> list[Column[RunRecord]]:
    """Return the columns of a table of runs: what differs in their settings, and how they did.

    "last tenth" is the mean over the last tenth of the logs.
    """
    columns = [Column[RunRecord]("run", lambda run: run.name)]
    columns += [Column(word(name), partial(_setting_text, name)) for name in differing(runs)]
    if not same_data(runs):
        columns.append(Column("data", lambda run: (dataset_digest(run) or NOTHING)[:8]))
    columns += [
        Column("parameters", summarized("parameters"), ","),
        Column("steps", _steps),
        Column("last loss", lambda run: run.losses[-1] if run.losses else None, ".4f"),
        Column("last tenth", lambda run: running_mean(run.losses)[-1] if run.losses else None, ".4f"),
    ]
    if any(run.evaluations for run in runs):
        columns.append(Column("validation loss", validation_loss, ".4f"))
    if any(run.dynamics for run in runs):
        columns += [Column(heading, dynamics_value(name), ".4g") for heading, name in DYNAMICS.items()]
    columns += [
        Column("steps/s", summarized("steps_per_second"), ",.1f"),
        Column("tokens/s", summarized("tokens_per_second"), ",.0f"),
        Column("device", _device),
    ]
    return columns


def table(runs: Sequence[RunRecord]) -> str:
    """Return an aligned table, a line a run: `columns_of_runs`. No line break at its end.

    Where the runs' data differ, the table says so.
    """
    parts = [aligned(columns_of_runs(runs), runs)]
    if not same_data(runs):
        parts.append(f"Attention: {DATA_DIFFER} (column data): these losses are no comparison of the runs.")
    if unfinished := [run.name for run in runs if not run.finished]:
        parts.append(f"Not finished: {', '.join(unfinished)}.")
    return "\n\n".join(parts)


def figures(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return for each run what the table says of it, as JSON types: null is nothing; `settings` has all of them."""
    return [
        {
            "run": run.name, "finished": run.finished, "settings": run.settings, "dataset": dataset_digest(run),
            "parameters": summarized("parameters")(run), "step": run.steps[-1] if run.steps else None,
            "last_loss": run.losses[-1] if run.losses else None,
            "last_tenth": float(running_mean(run.losses)[-1]) if run.losses else None,
            "validation_loss": validation_loss(run), "dynamics": run.last_dynamics,
            "steps_per_second": summarized("steps_per_second")(run),
            "tokens_per_second": summarized("tokens_per_second")(run), "device": _device(run),
        }
        for run in runs
    ]  # fmt: skip


def plot_labels(runs: Sequence[RunRecord]) -> list[str]:
    """Return a label a run: its name, and the settings that differ and shape what it learns."""
    names = [name for name in ("steps", *differing(runs)) if name not in NO_LEARNING and _differs(runs, name)]
    return [
        run.name
        + (": " if names else "")
        + ", ".join(f"{word(name)} {_setting_text(name, run)}" for name in names)
        + ("" if run.finished else " (not finished)")
        for run in runs
    ]


def _differs(runs: Sequence[RunRecord], name: str) -> bool:
    return any(_setting(run, name) != _setting(runs[0], name) for run in runs)


def _setting(run: RunRecord, name: str) -> Any:
    return run.settings.get(name, FIELDS[name].default if name in ADDED else None)


def _setting_text(name: str, run: RunRecord) -> str:
    value = _setting(run, name)
    parts = value if isinstance(value, list) else [value]
    return " ".join(
        NOTHING if part is None else f"{part:g}" if isinstance(part, float) else str(part) for part in parts
    )


def _device(run: RunRecord) -> str | None:
    return summarized("device_name")(run) or run.settings.get("device")


def _steps(run: RunRecord) -> str | None:
    """Return the number of steps, or for an unfinished run "logged of all"."""
    if (planned := run.settings.get("steps")) is None:
        return None
    return f"{planned:,}" if run.finished else f"{run.steps[-1] if run.steps else 0:,} of {planned:,}"
