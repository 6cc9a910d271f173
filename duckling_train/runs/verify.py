"""Checks a run directory: its files hashed again, and what they say held against each other and against the data.

A finished run has a manifest, and its files must be those, none missing and none added. An unfinished one has none yet;
its checkpoints are checked instead of its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from duckling_data.base.records import added, file_faults, first_fault
from duckling_data.base.strict_json import digest_json
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_train.config import TrainConfig
from duckling_train.data import DATASET, inputs_of, open_validation, open_workspace
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import Checkpoints, checkpoints_of
from duckling_train.runs.layout import RunManifest
from duckling_train.runs.read import find_run, read_run
from duckling_train.runs.resume import read_config


def locate(workspace: Path, run: str) -> Path:
    """Return the directory of `run`, as `find_run` does. Raises CheckFailed for a finished run without its settings."""
    try:
        return find_run(workspace, run)
    except InputError:
        for place in (workspace / layout.RUNS / run, Path(run)):
            if run and (place / layout.MANIFEST).is_file() and not (place / layout.CONFIG).is_file():
                raise CheckFailed(f"{place / layout.CONFIG} is missing") from None
        raise


def verify_run(run_dir: Path, workspace: Path) -> Iterator[str]:
    """Yield a line for each thing that holds. The data is checked where `workspace` holds some.

    Raises CheckFailed with the first thing that does not hold; where files differ, with the names of them all.
    """
    try:
        manifest = layout.read_manifest(run_dir)
        if manifest is not None:
            _check_files(run_dir, manifest)
            yield f"{'files':<12} ok: {len(manifest.files)} files, none missing, none added"
        config, inputs = read_config(run_dir)
        if manifest is not None:
            _expect_all(run_dir / layout.MANIFEST, inputs, manifest.inputs())
        yield f"{'config':<12} ok: {config.steps:,} steps, seed {config.seed}"
        checkpoints = _check_checkpoints(run_dir, config, inputs)
        if manifest is None and not checkpoints and (run_dir / layout.SUMMARY).is_file():
            raise CheckFailed(f"{run_dir / layout.MANIFEST} is missing: train the run again with --overwrite")
        yield f"{'checkpoints':<12} {f'ok: {checkpoints} whole' if checkpoints else 'none'}"
        # Refuses a line that holds no finite loss at a rising step.
        yield f"{'logs':<12} ok: {len(read_run(run_dir).losses)} losses, all finite"
        if manifest is not None:
            yield f"{'model':<12} ok: {_check_model(run_dir, config)}"
        yield f"{'data':<12} {_check_data(workspace, config, inputs)}"
        if manifest is None:
            yield f"{'unfinished':<12} resume with duckling-train --resume {run_dir}"
    except CheckFailed:
        raise
    except DucklingError as error:
        raise CheckFailed(str(error)) from error


def _check_files(run_dir: Path, manifest: RunManifest) -> None:
    """Raise CheckFailed, which names every file of the run that is not as its manifest says."""
    faults = dict(file_faults(run_dir, manifest.files, links=False))
    faults |= dict.fromkeys(added(_entries(run_dir), manifest.files), "was added: the run did not write it")
    if faults:
        raise CheckFailed(first_fault(run_dir, faults))


def _entries(run_dir: Path) -> set[str]:
    """Return the path in the run of everything that is where its artifacts are: of what is no regular file, too."""
    found = set()
    for artifact in layout.ARTIFACTS:
        if artifact.describe is None:
            continue
        path = run_dir / artifact.name
        if path.is_dir() and artifact.folder and not path.is_symlink():
            found |= {entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir()}
        elif path.exists() or path.is_symlink():
            found.add(path)
    return {path.relative_to(run_dir).as_posix() for path in found}


def _check_checkpoints(run_dir: Path, config: TrainConfig, inputs: dict[str, Any]) -> int:
    """Check every checkpoint, not the newest alone. Returns how many there are."""
    identity = {"config_sha256": digest_json(config.resolved()), "inputs": inputs}
    found = checkpoints_of(run_dir)
    for step, folder in found:
        Checkpoints(run_dir, identity, keep_all=True).read(step, folder)
    return len(found)


def _check_model(run_dir: Path, config: TrainConfig) -> str:
    """Check that the model's weights are finite. Returns what the model holds, for a person."""
    folder, count = run_dir / layout.MODEL, 0
    try:
        with safe_open(str(folder / layout.WEIGHTS), "pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dict
                tensor = file.get_tensor(name)
                if not bool(tensor.isfinite().all()):
                    raise CheckFailed(f"{folder / layout.WEIGHTS}: {name} holds a number that is not finite")
                count += tensor.numel()
    except (SafetensorError, OSError) as error:
        raise CheckFailed(f"{folder / layout.WEIGHTS}: cannot be read ({error})") from error
    dead = read_mapping(folder / MAPPING_FILE)["dead_tokens"]
    return f"{count:,} parameters, all finite; {dead:,} of {config.vocab_size:,} embedding rows are dead"


def _check_data(workspace: Path, config: TrainConfig, inputs: dict[str, Any]) -> str:
    """Hold the data that the run names against the workspace's, where it has some. Returns the rest of the line."""
    if not (workspace / DATASET).is_dir():
        return "not at hand: give the run's -w/--workspace to check it"
    data = open_workspace(workspace, config)
    found = inputs_of(data, open_validation(workspace, config, data.mapping))
    _expect_all(workspace, inputs, found)
    return f"ok: {inputs['dataset']['rows']:,} rows, those of {workspace}"


def _expect_all(where: Path, expected: dict[str, Any], found: dict[str, Any]) -> None:
    for name in expected | found:
        if found.get(name) != expected.get(name):
            raise CheckFailed(f"{where} has {name} {found.get(name)}, expected {expected.get(name)}")
