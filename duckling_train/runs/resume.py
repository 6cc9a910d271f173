"""`duckling-train --resume RUN`: an interrupted run continues from its newest checkpoint, bitwise as if uninterrupted.

Settings are those in the run's `config.json`. The logs are set back to the checkpoint's copies first: a step is never
logged twice and none is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.records import read_record
from duckling_train.config import TrainConfig, named
from duckling_train.data import DATASET
from duckling_train.model import resolve_device
from duckling_train.processes import is_main_process, process_count
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import Checkpoints
from duckling_train.runs.read import read_run
from duckling_train.runs.train import alone, prepare, run
from duckling_train.settings import INPUTS, read_settings


def resume(run_dir: Path, workspace: Path, given: Mapping[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Finish the run in `run_dir`. Returns its summary, at once where it is finished already.

    Raises InputError where `run_dir` is no run, where `given` settings or the workspace's data are not the run's, where
    the number of processes or the device is another, where another process trains in it, and for a damaged or foreign
    newest checkpoint.
    """
    config, inputs = read_config(run_dir)
    for name, value in given.items():
        if value != (before := getattr(config, name)) and not (name == "device" and value == "auto"):
            raise InputError(
                f"{named(name)} is {value}, but {run_dir} was started with {before}, and a run keeps its settings: "
                "leave the option out, or start another run"
            )
    with alone(run_dir):
        if layout.read_manifest(run_dir) is not None:
            if is_main_process():  # it may have been killed right after it wrote the manifest
                Checkpoints.of(run_dir, config, inputs).finish()
            if (summary := read_run(run_dir).summary) is None:
                raise InputError(f"{run_dir / layout.SUMMARY} is missing: {layout.AGAIN}")
            return summary
        if process_count() != config.processes:
            module = shlex.join(["-m", "duckling_train", "--resume", str(run_dir)])
            launcher = f"torchrun --nproc-per-node {config.processes}" if config.processes > 1 else "python"
            raise InputError(
                f"{run_dir} was started with {config.processes} processes, not {process_count()}: {launcher} {module}"
            )
        resolve_device(config.device)
        prepared = prepare(config, workspace, run_dir, quiet=quiet)
        if other := first_difference(inputs, prepared.inputs):
            raise InputError(
                f"{run_dir} was started on another {other} than {workspace} holds: "
                "give the run's own -w/--workspace, or start another run"
            )
        start = prepared.checkpoints().newest()
        if is_main_process():
            prepared.checkpoints().restore_logs(start)
        return run(prepared, start)


def read_config(run_dir: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the config of a run directory and the digests of the data it was started on."""
    path = run_dir / layout.CONFIG
    if not path.is_file():
        raise InputError(f"{run_dir} holds no {layout.CONFIG}: no run was started there; leave --resume out")
    inputs = read_record(path, dict[str, Any], layout.AGAIN).get(INPUTS)
    if not isinstance(inputs, dict):
        raise InputError(f"{path} does not say what data the run is on (no {INPUTS!r}); {layout.AGAIN}")
    return TrainConfig(**read_settings(path)), inputs


def first_difference(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Return the name of the first of a run's inputs that is another, or None."""
    return next((name for name in expected | found if found.get(name) != expected.get(name)), None)


def workspace_of(run_dir: Path, otherwise: Path) -> Path:
    """Return the workspace that holds `run_dir` as `runs/NAME`, where it has a dataset; else `otherwise`."""
    around = run_dir.resolve().parents
    return next((place for place in around if (place / DATASET).is_dir()), otherwise)
