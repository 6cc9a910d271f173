"""A run before it trains: its settings resolved on this machine, its data opened and checked, its engine proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from duckling_data.base.disk import check_room
from duckling_data.base.errors import InputError
from duckling_data.base.locks import wait_until_free
from duckling_data.base.progress import Reporter
from duckling_train.config import TrainConfig, named
from duckling_train.data import PackedRows, TrainingData, open_validation, open_workspace
from duckling_train.engines import REFERENCE, choose_engine, load_engine
from duckling_train.engines.base import Hook
from duckling_train.model import resolve_device
from duckling_train.processes import is_main_process, process_count
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import KEPT, Checkpoints
from duckling_train.runs.recorded import record_room


@dataclass(frozen=True)
class PreparedRun:
    """A run that is about to train: everything checked, nothing written."""

    config: TrainConfig
    data: TrainingData
    validation: PackedRows | None
    inputs: dict[str, Any]
    """What the run's records say about its data."""
    run_dir: Path
    quiet: bool
    hooks: Sequence[Hook] = ()
    """What else watches it."""

    again: str = ""
    """How it is resumed, where `--resume` is not the way."""

    def checkpoints(self) -> Checkpoints:
        """Return the run's checkpoints."""
        return Checkpoints(self.run_dir, self.config, self.inputs, self.again)


def resolve(config: TrainConfig) -> TrainConfig:
    """Return `config` with this machine's device, threads and processes where they were left open.

    Raises InputError for an absent device, a missing reporter, processes that do not divide the batch, and settings
    that the engine does not have.
    """
    check_reporter(config)
    device, threads = resolve_device(config.device), config.threads or torch.get_num_threads()
    return choose_engine(replace(config, device=device, threads=threads, processes=process_count()))[0]


def proven(prepared: PreparedRun, *, asked: str) -> PreparedRun:
    """Return the run once its engine has proved itself; where it fails and auto was `asked` for, on the reference's.

    Raises InputError where an engine that was asked for fails.
    """
    config, say = prepared.config, Reporter(prepared.quiet).say
    _, why = choose_engine(replace(config, engine=asked))
    try:
        load_engine(config.engine).prove(config, prepared.data.rows)
    except InputError as error:
        if asked != "auto":
            raise
        config, why = (
            replace(config, engine=REFERENCE, arithmetic="auto", compile="auto"),
            str(error).rpartition(": ")[0],
        )
    products = f"; products in {config.arithmetic}" if config.arithmetic != "auto" else ""
    compiled = {"yes": ", compiled", "auto": ""}.get(config.compile, ", not compiled")
    say(f"engine {config.engine}: {why}{products}{compiled}")
    return replace(prepared, config=config)


def check_reporter(config: TrainConfig) -> None:
    """Raise InputError for a reporter that is not installed."""
    if config.report_to != "none" and find_spec(config.report_to) is None:
        package = config.report_to
        raise InputError(f"{named('report_to')} is {package}, which is not installed: pip install {package}")


def prepare(config: TrainConfig, workspace: Path, run_dir: Path, *, quiet: bool) -> PreparedRun:
    """Return a run of a resolved config, its data opened and checked. Raises InputError for anything unfit."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # Rows stay readable while they are replaced, so no lock is held for hours; but what is half replaced is refused.
    wait_until_free(workspace, Reporter(quiet or not is_main_process()).say)
    data = open_workspace(workspace, config, Reporter(quiet or not is_main_process()))
    validation = open_validation(workspace, config, data.mapping)
    what = "the run's model and checkpoints" + (", and its record" if config.record != "none" else "")
    check_room(run_dir, room_needed(config) + record_room(config, data.mapping, run_dir), what, layout.elsewhere())
    return PreparedRun(config, data, validation, data.record(validation), run_dir, quiet or not is_main_process())


def room_needed(config: TrainConfig) -> int:
    """Return the bytes that a run's model and checkpoints take at most."""
    every = config.checkpoint_steps
    checkpoints = (-(-config.steps // every) if config.keep_checkpoints else KEPT + 1) if every else 0
    return 4 * config.parameters * (1 + 3 * checkpoints)  # in each checkpoint weights and two moments
