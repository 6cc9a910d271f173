"""Checks a run directory: its files hashed again, and what they say held against each other and against the data.

A finished run has a manifest, and its files must be those, none missing and none added. An unfinished one has none yet;
its checkpoints are checked in the place of its files.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from duckling_data.base.records import added, file_faults
from duckling_data.base.strict_json import digest_json, read_json
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_train.config import TrainConfig
from duckling_train.data import DATASET, inputs_of, open_validation, open_workspace
from duckling_train.model import model_config
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import Checkpoints, checkpoints_of
from duckling_train.runs.hooks import METRICS
from duckling_train.runs.layout import RunManifest
from duckling_train.runs.read import find_run, read_run
from duckling_train.runs.resume import read_config

Due = tuple[Sequence[int], Sequence[int]]
"""The steps at which a log has a line, in two stretches: never listed, for a config may ask for any number."""
SHAPED = ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions", "n_inner", "tie_word_embeddings")
"""What `model/config.json` must have as the run's settings give it."""


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
        with _reading(run_dir / layout.METRICS):
            losses = _check_logs(run_dir, config, finished=manifest is not None)
        yield f"{'logs':<12} ok: {losses} losses, all finite"
        if manifest is not None:
            yield f"{'model':<12} ok: {_check_model(run_dir, config)}"
        yield f"{'data':<12} {_check_data(workspace, config, inputs)}"
        if manifest is None:
            yield f"{'unfinished':<12} resume with duckling-train --resume {run_dir}"
    except CheckFailed:
        raise
    except DucklingError as error:
        raise CheckFailed(str(error)) from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what damaged content leads to into one line that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OSError, SafetensorError) as error:
        raise CheckFailed(f"{path} is not as a run writes it ({type(error).__name__}: {error})") from error


def _check_files(run_dir: Path, manifest: RunManifest) -> None:
    """Raise CheckFailed, which names every file of the run that is not as its manifest says."""
    faults = dict(file_faults(run_dir, manifest.files, links=False))
    faults |= dict.fromkeys(added(_entries(run_dir), manifest.files), "was added: the run did not write it")
    if faults:
        first, *others = faults
        also = f"; also {', '.join(others)}" if others else ""
        raise CheckFailed(f"{run_dir / first} {faults[first]}{also}")


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


def _check_logs(run_dir: Path, config: TrainConfig, *, finished: bool) -> int:
    """Check the steps and numbers of both logs, and the summary against them. Returns how many losses there are."""
    record = read_run(run_dir)  # refuses a line that holds no loss at a rising step
    metrics = _complete_lines(run_dir / layout.METRICS)
    if finished and not metrics:
        raise CheckFailed(f"{run_dir / layout.METRICS} holds no loss")
    rest = range(config.logging_steps, config.steps + 1, config.logging_steps)
    due: Due = ((1,), rest[1:] if config.logging_steps == 1 else rest)
    _check_lines(run_dir / layout.METRICS, metrics, due, ("step", *METRICS), finished=finished)
    if record.evaluations:
        every = config.eval_steps or config.steps
        due = (range(every, config.steps, every), (config.steps,))
        keys = tuple(record.evaluations[0])
        _check_lines(run_dir / layout.EVALUATIONS, record.evaluations, due, keys, finished=finished)
    if finished:
        expected = {
            "steps": config.steps,
            "first_loss": record.losses[0],
            "last_loss": record.losses[-1],
            "last_logged_step": record.steps[-1],
            "validation": record.evaluations[-1] if record.evaluations else None,
        }
        for name, value in expected.items():
            _expect(run_dir / layout.SUMMARY, name, (record.summary or {}).get(name), value)
    return len(metrics)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """Return a log's whole lines; the last of an unfinished run may be half written."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.is_file() else []


def _check_lines(path: Path, lines: list[dict[str, Any]], due: Due, keys: tuple[str, ...], *, finished: bool) -> None:
    """Hold a log against the steps at which a line was due. An unfinished run's may stop before the last."""
    for number, (line, step) in enumerate(zip(lines, itertools.chain(*due), strict=False), 1):
        if line["step"] != step:
            raise CheckFailed(f"{path}, line {number}: step {line['step']}, expected {step}")
        if tuple(line) != keys:
            raise CheckFailed(f"{path}, line {number}: has {', '.join(line)}, expected {', '.join(keys)}")
        for name, value in line.items():
            # None stands for what cannot be: no gradient norm without clipping, a perplexity beyond all floats.
            if value is not None and not math.isfinite(value):
                raise CheckFailed(f"{path}, line {number}: {name} is {value}, expected a finite number")
    count = sum(map(len, due))
    if len(lines) > count:
        last = next(part[-1] for part in reversed(due) if part)
        raise CheckFailed(f"{path}, line {count + 1} was added: the run's last is at step {last}")
    if finished and len(lines) < count:
        step = next(itertools.islice(itertools.chain(*due), len(lines), None))
        raise CheckFailed(f"{path} ends at line {len(lines)}, expected one more at step {step}")


def _check_model(run_dir: Path, config: TrainConfig) -> str:
    """Check the model's weights, its own configuration and its mapping. Returns what it holds, for a person."""
    folder = run_dir / layout.MODEL
    with _reading(folder / layout.WEIGHTS):
        parameters = _finite_numbers(folder / layout.WEIGHTS)
    _expect(folder / layout.WEIGHTS, "parameters", parameters, config.parameters)
    _expect(run_dir / layout.SUMMARY, "parameters", read_json(run_dir / layout.SUMMARY).get("parameters"), parameters)
    found, expected = read_json(folder / layout.CONFIG), model_config(config)
    for name in SHAPED:
        _expect(folder / layout.CONFIG, name, found.get(name), getattr(expected, name))
    mapping = read_mapping(folder / MAPPING_FILE)
    _expect(folder / MAPPING_FILE, "total_vocab", mapping["total_vocab"], config.vocab_size)
    dead = config.vocab_size - mapping["live_tokens"]
    return f"{parameters:,} parameters, all finite; {dead:,} of {config.vocab_size:,} embedding rows are dead"


def _finite_numbers(path: Path) -> int:
    """Return how many numbers a safetensors file holds. Raises CheckFailed where one is not finite."""
    count = 0
    with safe_open(str(path), "pt") as file:
        for name in file.keys():  # noqa: SIM118  # it is no dict
            tensor = file.get_tensor(name)
            if not bool(tensor.isfinite().all()):
                raise CheckFailed(f"{path}: {name} holds a number that is not finite")
            count += tensor.numel()
    return count


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
        _expect(where, name, found.get(name), expected.get(name))


def _expect(where: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckFailed(f"{where} has {name} {found}, expected {expected}")
