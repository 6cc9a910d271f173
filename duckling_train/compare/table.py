"""Runs side by side, for `duckling-train compare`: a table of what differs and how they did, a plot of their losses.

Losses are comparable on the same data alone: where the runs' datasets differ, table and plot say so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.files import write_bytes
from duckling_train.compare.loss_plot import running_mean
from duckling_train.compare.overlay import DATA_DIFFER, overlay
from duckling_train.config import flag
from duckling_train.runs.read import RunRecord, dataset_digest, read_run, same_data
from duckling_train.settings import DERIVED, FIELDS

OWN_COLUMNS = ("steps", "device")
"""Settings with a column of their own, whether they differ or not."""
NOTHING = "-"
DIGITS = 8
"""How much of a digest is shown."""


def comparison(run_dirs: Sequence[Path], out: Path) -> tuple[str, bool]:
    """Return the table of the runs, and whether their losses were plotted to `out` (a PNG): none has one at first.

    Raises InputError for a damaged run and for a place that cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise InputError(f"--out is {out}; the plot is a PNG, so its name must end in .png")
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"--out is {out}; it must be a file in a directory that is there and can be written to")
    records = [read_run(path) for path in run_dirs]
    names = unique_names(records, run_dirs)
    drawn = [number for number, record in enumerate(records) if record.losses]
    if drawn:
        labels = plot_labels(records, names)
        write_bytes(out, overlay([records[number] for number in drawn], [labels[number] for number in drawn]))
    return table(records, names), bool(drawn)


def unique_names(records: Sequence[RunRecord], run_dirs: Sequence[Path]) -> list[str]:
    """Return the runs' names; where two are equal, the paths that they were given by."""
    counts = Counter(record.name for record in records)
    pairs = zip(records, run_dirs, strict=True)
    return [record.name if counts[record.name] == 1 else str(path) for record, path in pairs]


def differing(records: Sequence[RunRecord]) -> list[str]:
    """Return the settings that are not equal in all runs, in their own order, but for OWN_COLUMNS and derived ones."""
    names = dict.fromkeys((*FIELDS, *(name for record in records for name in record.settings)))
    return [
        name
        for name in names
        if name not in (*OWN_COLUMNS, *DERIVED) and len({_setting(record, name) for record in records}) > 1
    ]


def table(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Return an aligned table, a line a run: what differs in its settings, and how it did. No line break at its end.

    "last loss" is the last one logged; "last tenth" is the mean over the last tenth of the logs, which is less of an
    accident. "-" is what a run does not say.
    """
    settings = differing(records)
    columns: list[tuple[str, Callable[[RunRecord], str]]] = [(flag(name)[2:], _setting_cell(name)) for name in settings]
    if not same_data(records):
        columns.append(("data", lambda record: (dataset_digest(record) or NOTHING)[:DIGITS]))
    columns += [
        ("parameters", lambda record: _number((record.summary or {}).get("parameters"), ",")),
        ("steps", _steps),
        ("last loss", lambda record: _number(record.losses[-1] if record.losses else None, ".4f")),
        ("last tenth", lambda record: _number(_last_tenth(record), ".4f")),
    ]
    if any(record.evaluations for record in records):
        columns.append(("validation loss", lambda record: _number(_validation(record), ".4f")))
    columns += [
        ("steps/s", lambda record: _number((record.summary or {}).get("steps_per_second"), ",.1f")),
        ("tokens/s", lambda record: _number((record.summary or {}).get("tokens_per_second"), ",.0f")),
        ("device", lambda record: str((record.summary or {}).get("device_name") or _setting(record, "device"))),
    ]
    rows = [[name, *(cell(record) for _, cell in columns)] for name, record in zip(names, records, strict=True)]
    lines = _aligned([["run", *(head for head, _ in columns)], *rows])
    if not same_data(records):
        lines += [
            "",
            f"Attention: {DATA_DIFFER} (column data): these losses are no comparison of the runs.",
        ]
    unfinished = [name for name, record in zip(names, records, strict=True) if not record.finished]
    if unfinished:
        lines += ["", f"Not finished: {', '.join(unfinished)}."]
    return "\n".join(lines)


def plot_labels(records: Sequence[RunRecord], names: Sequence[str]) -> list[str]:
    """Return a label a run: the settings that differ, with their values, or its name where those do not tell it apart.

    An unfinished run's says so.
    """
    settings = [name for name in ("steps", *differing(records)) if len({_setting(each, name) for each in records}) > 1]
    told = [", ".join(f"{flag(name)[2:]} {_shown(_setting(each, name))}" for name in settings) for each in records]
    labels = [label if label and told.count(label) == 1 else name for label, name in zip(told, names, strict=True)]
    return [
        label if record.finished else f"{label} (not finished)" for label, record in zip(labels, records, strict=True)
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines: columns two spaces apart, numbers to the right, all else to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(_is_number(cell) for cell in column[1:]) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _is_number(cell: str) -> bool:
    return cell == NOTHING or cell.replace(",", "").replace(" of ", "").replace(".", "").replace("e-", "").isdigit()


def _setting(record: RunRecord, name: str) -> Any:
    """Return a setting's value, hashable; None where the run does not know the setting."""
    value = record.settings.get(name)
    return tuple(value) if isinstance(value, list) else value


def _setting_cell(name: str) -> Callable[[RunRecord], str]:
    return lambda record: _shown(_setting(record, name))


def _shown(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, tuple):
        return " ".join(_shown(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _steps(record: RunRecord) -> str:
    """Return the number of steps, or for an unfinished run "logged of all"."""
    planned = record.settings.get("steps")
    if record.finished or planned is None:
        return _number(planned, ",")
    return f"{record.steps[-1] if record.steps else 0:,} of {planned:,}"


def _last_tenth(record: RunRecord) -> float | None:
    return float(running_mean(record.losses)[-1]) if record.losses else None


def _validation(record: RunRecord) -> float | None:
    return record.evaluations[-1]["loss"] if record.evaluations else None
