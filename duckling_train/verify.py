"""Checks a run directory: its files hashed again, and what they say held against each other and against the data.

A finished run has a manifest, and its files must be those, none missing and none added. An unfinished one has none yet;
its checkpoints are checked in the place of its files.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from duckling_data.errors import CheckFailed, DucklingError, InputError
from duckling_data.files import digest_json, read_json
from duckling_data.manifest import describe_output
from duckling_data.mapping import MAPPING_FILE, read_mapping
from duckling_train import checkpoint as cp
from duckling_train import run_dir as places
from duckling_train.callbacks import METRICS
from duckling_train.config import TrainConfig
from duckling_train.data import DATASET, inputs_of, open_validation, open_workspace
from duckling_train.model import build_model, model_config
from duckling_train.precision import RECIPES
from duckling_train.resume import read_config
from duckling_train.runs import find_run, read_run

WEIGHTS = "model.safetensors"
SHAPED = ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions", "n_inner", "tie_word_embeddings")
"""What `model/config.json` must have as the run's settings give it."""


def locate(workspace: Path, run: str) -> Path:
    """Return the directory of `run`, as `find_run` does. Raises CheckFailed for a finished run without its settings."""
    try:
        return find_run(workspace, run)
    except InputError:
        for place in (workspace / places.RUNS / run, Path(run)):
            if run and (place / places.MANIFEST).is_file() and not (place / places.CONFIG).is_file():
                raise CheckFailed(f"{place / places.CONFIG} is missing") from None
        raise


def verify_run(run_dir: Path, workspace: Path) -> Iterator[str]:
    """Yield a line for each thing that holds. The data is checked where `workspace` holds some.

    Raises CheckFailed with the first difference.
    """
    finished = (run_dir / places.MANIFEST).is_file()
    try:
        if finished:
            yield f"{'files':<12} ok: {_check_files(run_dir)} files, none missing, none added"
        config, inputs = read_config(run_dir)
        if finished:
            _check_inputs(run_dir, inputs)
        yield f"{'config':<12} ok: {config.steps:,} steps, seed {config.seed}"
        checkpoints = _check_checkpoints(run_dir, config, inputs)
        if not finished and not checkpoints and (run_dir / places.SUMMARY).is_file():
            raise CheckFailed(f"{run_dir / places.MANIFEST} is missing: train the run again with --overwrite")
        yield f"{'checkpoints':<12} {f'ok: {checkpoints} whole' if checkpoints else 'none'}"
        with _reading(run_dir / places.METRICS):
            losses = _check_logs(run_dir, config, finished=finished)
        yield f"{'logs':<12} ok: {losses} losses, all finite"
        if finished:
            yield f"{'model':<12} ok: {_check_model(run_dir, config)}"
        yield f"{'data':<12} {_check_data(workspace, config, inputs)}"
        if not finished:
            yield f"{'unfinished':<12} go on with duckling-train --resume {run_dir}"
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


def _check_files(run_dir: Path) -> int:
    """Hold the files against the manifest. Returns how many they are."""
    path = run_dir / places.MANIFEST
    with _reading(path):
        manifest = read_json(path)
        _expect(path, "format", manifest["format"], places.FORMAT_VERSION)
        _compare_files(run_dir, manifest["files"], {file.as_posix() for file in places.files_of(run_dir)})
        return len(manifest["files"])


def _check_inputs(run_dir: Path, inputs: dict[str, Any]) -> None:
    manifest = read_json(run_dir / places.MANIFEST)
    for name, expected in inputs.items():
        _expect(run_dir / places.MANIFEST, name, manifest.get(name), expected)


def _compare_files(folder: Path, expected: dict[str, dict[str, Any]], found: set[str]) -> None:
    for name, described in expected.items():
        path = folder / name
        if name not in found:
            raise CheckFailed(f"{path} is missing")
        here = describe_output(path)
        for key in ("bytes", "sha256"):
            _expect(path, key, here[key], described[key])
    for name in sorted(found - expected.keys()):
        raise CheckFailed(f"{folder / name} was added: the run did not write it")


def _check_checkpoints(run_dir: Path, config: TrainConfig, inputs: dict[str, Any]) -> int:
    """Check every checkpoint, not the newest alone. Returns how many there are."""
    expected = {"format": cp.FORMAT_VERSION, "config_sha256": digest_json(config.resolved()), "inputs": inputs}
    checkpoints = cp.checkpoints_of(run_dir)
    for step, folder in checkpoints:
        path = folder / cp.CHECKPOINT
        with _reading(path):
            content = read_json(path)
            for name, value in {**expected, "step": step}.items():
                _expect(path, name, content.get(name), value)
            _compare_files(folder, content["files"], {file.name for file in folder.iterdir()} - {cp.CHECKPOINT})
        _check_tensors(folder / cp.WEIGHTS, config)
    return len(checkpoints)


def _check_logs(run_dir: Path, config: TrainConfig, *, finished: bool) -> int:
    """Check the steps and numbers of both logs, and the summary against them. Returns how many losses there are."""
    record = read_run(run_dir)  # refuses a line that holds no loss at a rising step
    metrics = _complete_lines(run_dir / places.METRICS)
    if finished and not metrics:
        raise CheckFailed(f"{run_dir / places.METRICS} holds no loss")
    due = [1, *(step for step in range(config.logging_steps, config.steps + 1, config.logging_steps) if step > 1)]
    _check_lines(run_dir / places.METRICS, metrics, due, ("step", *METRICS), finished=finished)
    if record.evaluations:
        every = config.eval_steps or config.steps
        due = [*range(every, config.steps, every), config.steps]
        keys = tuple(record.evaluations[0])
        _check_lines(run_dir / places.EVALUATIONS, record.evaluations, due, keys, finished=finished)
    if finished:
        expected = {
            "steps": config.steps,
            "first_loss": record.losses[0],
            "last_loss": record.losses[-1],
            "last_logged_step": record.steps[-1],
            "validation": record.evaluations[-1] if record.evaluations else None,
        }
        for name, value in expected.items():
            _expect(run_dir / places.SUMMARY, name, (record.summary or {}).get(name), value)
    return len(metrics)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """Return a log's whole lines; the last of an unfinished run may be half written."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.is_file() else []


def _check_lines(
    path: Path, lines: list[dict[str, Any]], due: list[int], keys: tuple[str, ...], *, finished: bool
) -> None:
    """Hold a log against the steps at which a line was due. An unfinished run's may stop before the last."""
    for number, (line, step) in enumerate(zip(lines, due, strict=False), 1):
        if line["step"] != step:
            raise CheckFailed(f"{path}, line {number}: step {line['step']}, expected {step}")
        if tuple(line) != keys:
            raise CheckFailed(f"{path}, line {number}: has {', '.join(line)}, expected {', '.join(keys)}")
        for name, value in line.items():
            # None stands for what cannot be: no gradient norm without clipping, a perplexity beyond all floats.
            if value is not None and not math.isfinite(value):
                raise CheckFailed(f"{path}, line {number}: {name} is {value}, expected a finite number")
    if len(lines) > len(due):
        raise CheckFailed(f"{path}, line {len(due) + 1} was added: the run's last is at step {due[-1]}")
    if finished and len(lines) < len(due):
        raise CheckFailed(f"{path} ends at line {len(lines)}, expected one more at step {due[len(lines)]}")


def _check_model(run_dir: Path, config: TrainConfig) -> str:
    """Check the model's tensors, its own configuration and its mapping. Returns what it holds, for a person."""
    folder = run_dir / places.MODEL
    parameters = _check_tensors(folder / WEIGHTS, config)
    _expect(run_dir / places.SUMMARY, "parameters", read_json(run_dir / places.SUMMARY).get("parameters"), parameters)
    found, expected = read_json(folder / places.CONFIG), model_config(config)
    for name in SHAPED:
        _expect(folder / places.CONFIG, name, found.get(name), getattr(expected, name))
    mapping = read_mapping(folder / MAPPING_FILE)
    _expect(folder / MAPPING_FILE, "total_vocab", mapping["total_vocab"], config.vocab_size)
    dead = config.vocab_size - mapping["live_tokens"]
    return f"{parameters:,} parameters, all finite; {dead:,} of {config.vocab_size:,} embedding rows are dead"


def _check_tensors(path: Path, config: TrainConfig) -> int:
    """Check that a file holds the parameters of `config`'s model, in shape and dtype, all finite. Returns how many."""
    dtype = RECIPES[config.precision].weights
    with torch.device("meta"):
        expected = {name: tuple(parameter.shape) for name, parameter in build_model(config).named_parameters()}
    with _reading(path), safe_open(str(path), "pt") as file:
        names = set(file.keys())
        for name in sorted(expected.keys() | names):
            if name not in names or name not in expected:
                raise CheckFailed(f"{path}: {name} {'is missing' if name in expected else 'was added'}")
            tensor = file.get_tensor(name)
            if tuple(tensor.shape) != expected[name] or tensor.dtype != dtype:
                found = f"{tensor.dtype} {list(tensor.shape)}"
                raise CheckFailed(f"{path}: {name} is {found}, expected {dtype} {list(expected[name])}")
            if not bool(tensor.isfinite().all()):
                raise CheckFailed(f"{path}: {name} holds a number that is not finite")
    return sum(math.prod(shape) for shape in expected.values())


def _check_data(workspace: Path, config: TrainConfig, inputs: dict[str, Any]) -> str:
    """Hold the data that the run names against the workspace's, where it has some. Returns the rest of the line."""
    if not (workspace / DATASET).is_dir():
        return "not at hand: give the run's -w/--workspace to check it"
    data = open_workspace(workspace, config)
    found = inputs_of(data, open_validation(workspace, config, data.mapping))
    for name in inputs | found:
        _expect(workspace, name, found.get(name), inputs.get(name))
    return f"ok: {inputs['dataset']['rows']:,} rows, those of {workspace}"


def _expect(where: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckFailed(f"{where} has {name} {found}, expected {expected}")
