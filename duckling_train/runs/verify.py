"""Checks a run directory: its files hashed again, and what they say held against each other and against the data.

An unfinished run has no manifest yet; its checkpoints are checked instead of its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duckling_data.base.errors import CheckFailed, DucklingError
from duckling_data.base.progress import SILENT, Reporter
from duckling_train.config import TrainConfig
from duckling_train.data import DATASET, open_validation, open_workspace
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import Checkpoints, checkpoints_of
from duckling_train.runs.open import open_model
from duckling_train.runs.read import read_run
from duckling_train.runs.recorded import check_record
from duckling_train.runs.resume import first_difference, read_config

LISTED = [artifact.name for artifact in layout.ARTIFACTS if artifact.describe is not None]


def verify_run(run_dir: Path, workspace: Path, reporter: Reporter = SILENT) -> Iterator[str]:
    """Yield a line for each thing that holds. The data is checked where `workspace` holds some.

    Raises CheckFailed with the first thing that does not hold; where files differ, with the names of them all.
    """
    try:
        manifest = layout.read_manifest(run_dir)
        if manifest is not None:
            if fault := layout.damage(run_dir, manifest, LISTED, links=False, reporter=reporter):
                raise CheckFailed(fault)
            yield f"{'files':<12} ok: {len(manifest.files)} files, none missing, none added"
        config, inputs = read_config(run_dir)
        if manifest is not None:
            _expect_all(run_dir / layout.MANIFEST, inputs, manifest.inputs())
        yield f"{'config':<12} ok: {config.steps:,} steps, seed {config.seed}"
        checkpoints, found = Checkpoints(run_dir, config, inputs), checkpoints_of(run_dir)
        for step, folder in found:
            checkpoints.read(step, folder)
        if manifest is None and not found and (run_dir / layout.SUMMARY).is_file():
            raise CheckFailed(f"{run_dir / layout.MANIFEST} is missing: {layout.AGAIN}")
        yield f"{'checkpoints':<12} {f'ok: {len(found)} whole' if found else 'none'}"
        # Refuses a line that holds no finite loss at a rising step.
        yield f"{'logs':<12} ok: {len(read_run(run_dir).losses)} losses, all finite"
        last = config.steps if manifest is not None else max((step for step, _ in found), default=None)
        if last is not None:
            yield from check_record(run_dir, config, inputs, last)
        if manifest is not None:
            yield f"{'model':<12} ok: {_check_model(run_dir, config)}"
        yield f"{'data':<12} {_check_data(workspace, config, inputs, reporter)}"
        if manifest is None:
            yield f"{'unfinished':<12} resume with duckling-train --resume {run_dir}"
    except CheckFailed:
        raise
    except DucklingError as error:
        raise CheckFailed(str(error)) from error


def _check_model(run_dir: Path, config: TrainConfig) -> str:
    """Check that the model opens and its weights are finite. Returns what it holds, for a person."""
    model, tokenizer = open_model(run_dir)
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise CheckFailed(f"{run_dir / layout.MODEL}: {name} holds a number that is not finite")
    dead = len(tokenizer.dead_token_ids)
    return f"{config.parameters:,} parameters, all finite; {dead:,} of {config.vocab_size:,} embedding rows are dead"


def _check_data(workspace: Path, config: TrainConfig, inputs: dict[str, Any], reporter: Reporter) -> str:
    """Hold the data that the run names against the workspace's, where it has some. Returns the rest of the line."""
    if not (workspace / DATASET).is_dir():
        return "not at hand: give the run's -w/--workspace to check it"
    data = open_workspace(workspace, config, reporter)
    _expect_all(workspace, inputs, data.record(open_validation(workspace, config, data.mapping)))
    return f"ok: {inputs['dataset']['rows']:,} rows, those of {workspace}"


def _expect_all(where: Path, expected: dict[str, Any], found: dict[str, Any]) -> None:
    if name := first_difference(expected, found):
        raise CheckFailed(f"{where} has {name} {found.get(name)}, expected {expected.get(name)}")
