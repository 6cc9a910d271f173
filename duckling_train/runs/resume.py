"""`duckling-train --resume RUN`: an interrupted run continues from its newest checkpoint, bitwise as if uninterrupted.

Settings come from the run's `config.json`; those given again must be equal. The logs are set back to the checkpoint's
own copies first, so a step is never logged twice and none is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.strict_json import read_json
from duckling_train.config import TrainConfig, flag
from duckling_train.data import DATASET
from duckling_train.model import resolve_device
from duckling_train.processes import is_main_process, process_count
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import Checkpoints
from duckling_train.runs.read import read_run
from duckling_train.runs.train import PreparedRun, alone, prepare, run
from duckling_train.settings import INPUTS, read_settings


def resume(run_dir: Path, workspace: Path, given: Mapping[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Finish the run in `run_dir`. Returns its summary, at once where it is finished already.

    Raises InputError where `run_dir` is no run, where `given` settings or the workspace's data are not the run's, where
    the number of processes or the device is another, where another process trains in it, and for a damaged or foreign
    newest checkpoint.
    """
    config, inputs = read_config(run_dir)
    _check_given(run_dir, config, given)
    with alone(run_dir):
        if layout.has_manifest(run_dir):
            if is_main_process():  # it may have been killed right after it wrote the manifest
                Checkpoints(run_dir, {}, keep_all=config.keep_checkpoints).finish()
            return _summary(run_dir)
        _check_processes(run_dir, config)
        resolve_device(config.device)
        prepared = prepare(config, workspace, run_dir, quiet=quiet)
        _check_inputs(prepared, workspace, inputs)
        start = prepared.checkpoints().newest()
        if is_main_process():
            prepared.checkpoints().restore_logs(start)
        return run(prepared, start)


def read_config(run_dir: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the config of a run directory and the digests of the data it was started on."""
    path = run_dir / layout.CONFIG
    if not path.is_file():
        raise InputError(f"{run_dir} holds no {layout.CONFIG}: no run was started there; leave --resume out")
    inputs = read_json(path).get(INPUTS)
    if not isinstance(inputs, dict):
        raise InputError(
            f"{path} does not say what data the run is on (no {INPUTS!r}): start it again with --overwrite"
        )
    return TrainConfig(**read_settings(path)), inputs


def _summary(run_dir: Path) -> dict[str, Any]:
    """Return a finished run's summary. Raises InputError where its records are not the ones that it wrote."""
    summary = read_run(run_dir).summary
    figures = ("steps", "first_loss", "last_loss", "last_logged_step", "steps_per_second")
    if summary is None or not all(isinstance(summary.get(name), int | float) for name in figures):
        raise InputError(f"{run_dir / layout.SUMMARY} is not a run's: train the run again with --overwrite")
    return summary


def workspace_of(run_dir: Path, otherwise: Path) -> Path:
    """Return the workspace that holds `run_dir` as `runs/NAME`, where it has a dataset; else `otherwise`."""
    around = run_dir.resolve().parents
    return next((place for place in around if (place / DATASET).is_dir()), otherwise)


def _check_given(run_dir: Path, config: TrainConfig, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        before = getattr(config, name)
        if value != before and not (name == "device" and value == "auto"):
            raise InputError(
                f"{flag(name)} is {value}, but {run_dir} was started with {before}, and a run keeps its settings: "
                "leave the option out, or start another run"
            )


def _check_processes(run_dir: Path, config: TrainConfig) -> None:
    if process_count() != config.processes:
        module = shlex.join(["-m", "duckling_train", "--resume", str(run_dir)])
        how = f"torchrun --nproc-per-node {config.processes} {module}" if config.processes > 1 else f"python {module}"
        raise InputError(f"{run_dir} was started with {config.processes} processes, not {process_count()}: {how}")


def _check_inputs(prepared: PreparedRun, workspace: Path, inputs: dict[str, Any]) -> None:
    found = prepared.inputs()
    for name in inputs | found:
        if found.get(name) != inputs.get(name):
            raise InputError(
                f"{prepared.run_dir} was started on another {name} than {workspace} holds: "
                "give the run's own -w/--workspace, or start another run"
            )
