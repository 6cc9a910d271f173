"""Training from the workspace's two files to finished run directories: one run, or many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.locks import beside, held
from duckling_data.base.strict_json import write_json
from duckling_train.config import TrainConfig
from duckling_train.data import refuse_short
from duckling_train.engines.base import Hook
from duckling_train.processes import is_main_process
from duckling_train.runs import layout
from duckling_train.runs.fit import run
from duckling_train.runs.prepared import PreparedRun, prepare, proven, resolve
from duckling_train.settings import INPUTS


def train(
    config: TrainConfig, workspace: Path, run_dir: Path, *, overwrite: bool = False, quiet: bool = False,
    hooks: Sequence[Hook] = (),
) -> dict[str, Any]:  # fmt: skip
    """Train on `workspace`'s dataset and write the run to `run_dir`. Returns the summary; beside the main process {}.

    `hooks` watch it besides the run's own.

    Raises InputError for a missing or unfit workspace, device or run directory, for one in which another process trains
    and for a loss that is not finite, OutsideError when the disk fails.
    """
    if is_main_process() and (refused := layout.refusal(run_dir, overwrite=overwrite)):
        raise InputError(refused)
    prepared = replace(prepare(resolve(config), workspace, run_dir, quiet=quiet), hooks=hooks)
    refuse_short(prepared.config, prepared.data)
    prepared = proven(prepared, asked=config.engine)
    with alone(run_dir):
        if is_main_process():
            begin(prepared, overwrite=overwrite)
            prepared.checkpoints().say_kept()
        return run(prepared, None)


def begin(prepared: PreparedRun, *, overwrite: bool) -> None:
    """Make the run's directory with its settings: from here on it can be resumed."""
    layout.prepare(prepared.run_dir, overwrite=overwrite)
    write_json(prepared.run_dir / layout.CONFIG, {**prepared.config.resolved(), INPUTS: prepared.inputs})


@contextlib.contextmanager
def alone(run_dir: Path) -> Iterator[None]:
    """Hold the run directory's lock. Raises InputError that names the process that holds it, and as `make_folder`."""
    with contextlib.ExitStack() as stack:
        if is_main_process():
            layout.make_folder(run_dir.parent, run_dir)
            stack.enter_context(held(beside(run_dir), run_dir, waiting=None))
        yield
