"""Many runs at once, by the fast engine: each has its own directory, and is the run that it would be alone.

Called again with the same settings it goes on: finished runs are left alone, the others go on from their checkpoints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from duckling_data.base.disk import check_room
from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.base.signals import keep
from duckling_train.config import TrainConfig, given
from duckling_train.data import refuse_short
from duckling_train.engines import FAST
from duckling_train.engines.base import Checkpoint
from duckling_train.runs import layout
from duckling_train.runs.fit import run_together
from duckling_train.runs.prepared import PreparedRun, prepare, proven, resolve, room_needed
from duckling_train.runs.read import read_run
from duckling_train.runs.recorded import record_room
from duckling_train.runs.resume import first_difference, read_config
from duckling_train.runs.train import alone, begin

AGAIN = "the same command again"
End = dict[str, Any] | InputError
"""A run's summary, or why it ended early."""


def train_many(
    configs: Sequence[TrainConfig], workspace: Path, run_dirs: Sequence[Path], *, overwrite: bool = False,
    quiet: bool = False,
) -> list[End]:  # fmt: skip
    """Train a run of each config in the directory of the same number. Returns for each its summary, or why it failed.

    One that diverges ends alone. Raises InputError for what the fast engine does not have, and as `train` does.
    """
    runs = _runs(configs, workspace, run_dirs, quiet=quiet, prove=True)
    with contextlib.ExitStack() as stack:
        for each in runs:
            stack.enter_context(alone(each.run_dir))
        ends: dict[int, End] = {}
        left: dict[int, list[tuple[int, PreparedRun, Checkpoint | None]]] = {}
        for number, each in enumerate(runs):
            if not overwrite and (summary := _finished(each)) is not None:
                ends[number] = summary
                continue
            start = _start(each, overwrite=overwrite)
            left.setdefault(start.step if start else 0, []).append((number, each, start))
        keep(f"what has a checkpoint goes on from it: {AGAIN}")
        Reporter(quiet).say(_told(len(ends), left))
        for group in left.values():
            made = run_together([each for _, each, _ in group], [start for *_, start in group])
            ends |= dict(zip((number for number, *_ in group), made, strict=True))
    return [ends[number] for number in range(len(runs))]


def plan_many(
    configs: Sequence[TrainConfig], workspace: Path, run_dirs: Sequence[Path], *, overwrite: bool = False
) -> list[str]:
    """Return a line of each run that `train_many` would train or leave. Nothing is written. Raises as `train_many`."""
    lines = []
    for each in _runs(configs, workspace, run_dirs, quiet=True, prove=False):
        if overwrite or not (each.run_dir / layout.CONFIG).is_file():
            if refused := layout.refusal(each.run_dir, overwrite=overwrite):
                raise InputError(refused)
            state = "would be trained from step 1"
        elif _finished(each) is not None:
            state = "is finished and stays as it is"
        else:
            _refuse_other(each)
            start = each.checkpoints().newest()
            state = f"would go on from step {start.step + 1 if start else 1:,}"
        lines.append(f"{each.run_dir}: {state}")
    return lines


def _runs(
    configs: Sequence[TrainConfig], workspace: Path, run_dirs: Sequence[Path], *, quiet: bool, prove: bool
) -> list[PreparedRun]:
    """Return the runs, prepared; where `prove`, the engine has proved itself. Raises InputError as `train_many`."""
    first = prepare(resolve(configs[0]), workspace, run_dirs[0], quiet=quiet)
    refuse_short(first.config, first.data)
    if prove:
        first = proven(first, asked=configs[0].engine)
    if first.config.engine != FAST:
        raise InputError(f"many runs at once need the fast engine, not {first.config.engine}: see duckling-train sweep")
    needed = len(configs) * room_needed(first.config)
    needed += sum(record_room(first.config, first.data.mapping, run_dir) for run_dir in run_dirs)
    check_room(run_dirs[0], needed, "the runs' models, checkpoints and records", layout.elsewhere())
    return [
        replace(first, config=resolve(config), run_dir=run_dir, again=AGAIN)
        for config, run_dir in zip(configs, run_dirs, strict=True)
    ]


def _finished(prepared: PreparedRun) -> dict[str, Any] | None:
    """Return the summary of a run that is finished, or None. Raises InputError where it has other settings or data."""
    if layout.read_manifest(prepared.run_dir) is None:
        return None
    _refuse_other(prepared)
    return read_run(prepared.run_dir).summary


def _start(prepared: PreparedRun, *, overwrite: bool) -> Checkpoint | None:
    """Return the checkpoint from which a run goes on; None where it starts, its directory made."""
    if overwrite or not (prepared.run_dir / layout.CONFIG).is_file():
        if refused := layout.refusal(prepared.run_dir, overwrite=overwrite):
            raise InputError(refused)
        begin(prepared, overwrite=overwrite)
        return None
    _refuse_other(prepared)
    checkpoints = prepared.checkpoints()
    start = checkpoints.newest()
    checkpoints.restore_logs(start)
    return start


def _refuse_other(prepared: PreparedRun) -> None:
    """Raise InputError where the run in the directory has other settings or was trained on other data."""
    config, inputs = read_config(prepared.run_dir)
    other = first_difference(config.resolved(), prepared.config.resolved()) or first_difference(inputs, prepared.inputs)
    if other is not None:
        raise InputError(
            f"{prepared.run_dir} holds a run with another {other}: give {given('overwrite', True)} to replace it"
        )


def _told(finished: int, left: dict[int, list[Any]]) -> str:
    """Return how many runs are finished, and from which step how many go on."""
    parts = [f"{len(group)} from step {step + 1:,}" for step, group in sorted(left.items())]
    return f"{sum(map(len, left.values()))} runs at once: {', '.join([f'{finished} are finished', *parts])}"
