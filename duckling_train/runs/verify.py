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

from safetensors import SafetensorError

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from duckling_data.base.strict_json import digest_json, read_json
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_data.workspace.manifest import describe_output
from duckling_train.config import TrainConfig
from duckling_train.data import DATASET, inputs_of, open_validation, open_workspace
from duckling_train.engines.reference.restore import check_content
from duckling_train.model import model_config
from duckling_train.runs import checkpoint as cp
from duckling_train.runs import layout as places
from duckling_train.runs.callbacks import METRICS
from duckling_train.runs.read import find_run, read_run
from duckling_train.runs.resume import read_config
from duckling_train.runs.tensors import check_finite, check_layout, parameters_of

Due = tuple[Sequence[int], Sequence[int]]
"""The steps at which a log has a line, in two stretches: never listed, for a config may ask for any number."""
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

    Raises CheckFailed with the first thing that does not hold; where files differ, with the names of them all.
    """
    try:
        finished = places.has_manifest(run_dir)
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
        _compare_files(run_dir, manifest["files"], _entries(run_dir))
        return len(manifest["files"])


def _entries(run_dir: Path) -> set[str]:
    """Return the path in the run of everything in the places of its files: of what is no regular file, too."""
    found = set()
    for top in places.RECORDED:
        place = run_dir / top
        inside = sorted(place.rglob("*")) if place.is_dir() and not place.is_symlink() else []
        ends = [path for path in inside if path.is_symlink() or not path.is_dir()]
        # A directory counts as the files in it, but in the place of a file.
        if place.is_symlink() or (place.exists() and (top != places.MODEL or not place.is_dir())):
            ends.append(place)
        found |= {path.relative_to(run_dir).as_posix() for path in ends}
    return found


def _check_inputs(run_dir: Path, inputs: dict[str, Any]) -> None:
    manifest = read_json(run_dir / places.MANIFEST)
    for name, expected in inputs.items():
        _expect(run_dir / places.MANIFEST, name, manifest.get(name), expected)


def _compare_files(folder: Path, expected: dict[str, dict[str, Any]], found: set[str]) -> None:
    """Raise CheckFailed, which names every file that is not as expected; `found` is what there is in their places."""
    faults = {name: _fault(folder / name, described, there=name in found) for name, described in expected.items()}
    faults |= dict.fromkeys(sorted(found - expected.keys()), "was added: the run did not write it")
    wrong = [name for name, fault in faults.items() if fault]
    if wrong:
        also = f"; also {', '.join(wrong[1:])}" if wrong[1:] else ""
        raise CheckFailed(f"{folder / wrong[0]} {faults[wrong[0]]}{also}")


def _fault(path: Path, described: dict[str, Any], *, there: bool) -> str | None:
    """Return what is wrong with a file, or None where its size and SHA-256 are those described."""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, expected the file itself"
    if not there:
        return "is missing"
    if not path.is_file():
        return f"is a {'directory' if path.is_dir() else 'pipe or device'}, expected a file"
    here = describe_output(path)
    for key in ("bytes", "sha256"):
        if here[key] != described[key]:
            return f"has {key} {here[key]}, expected {described[key]}"
    return None


def _check_checkpoints(run_dir: Path, config: TrainConfig, inputs: dict[str, Any]) -> int:
    """Check every checkpoint, not the newest alone. Returns how many there are."""
    expected = {"format": cp.FORMAT_VERSION, "config_sha256": digest_json(config.resolved()), "inputs": inputs}
    identity = {name: expected[name] for name in ("config_sha256", "inputs")}
    found = cp.checkpoints_of(run_dir)
    for step, folder in found:
        path = folder / cp.CHECKPOINT
        with _reading(path):
            content = read_json(path)
            for name, value in {**expected, "step": step}.items():
                _expect(path, name, content.get(name), value)
            _compare_files(folder, content["files"], {file.name for file in folder.iterdir()} - {cp.CHECKPOINT})
            # The record's own digest, and what fits every digest and is not this run's: as `--resume` reads it.
            checkpoint = cp.Checkpoints(run_dir, identity, places.LOGS, keep_all=True).read(step, folder)
            check_content(checkpoint, config)
            check_finite(folder / cp.WEIGHTS)
    return len(found)


def _check_logs(run_dir: Path, config: TrainConfig, *, finished: bool) -> int:
    """Check the steps and numbers of both logs, and the summary against them. Returns how many losses there are."""
    record = read_run(run_dir)  # refuses a line that holds no loss at a rising step
    metrics = _complete_lines(run_dir / places.METRICS)
    if finished and not metrics:
        raise CheckFailed(f"{run_dir / places.METRICS} holds no loss")
    rest = range(config.logging_steps, config.steps + 1, config.logging_steps)
    due: Due = ((1,), rest[1:] if config.logging_steps == 1 else rest)
    _check_lines(run_dir / places.METRICS, metrics, due, ("step", *METRICS), finished=finished)
    if record.evaluations:
        every = config.eval_steps or config.steps
        due = (range(every, config.steps, every), (config.steps,))
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
    folder = run_dir / places.MODEL
    check_layout(folder / places.WEIGHTS, parameters_of(config))
    check_finite(folder / places.WEIGHTS)
    parameters = config.parameters
    _expect(run_dir / places.SUMMARY, "parameters", read_json(run_dir / places.SUMMARY).get("parameters"), parameters)
    found, expected = read_json(folder / places.CONFIG), model_config(config)
    for name in SHAPED:
        _expect(folder / places.CONFIG, name, found.get(name), getattr(expected, name))
    mapping = read_mapping(folder / MAPPING_FILE)
    _expect(folder / MAPPING_FILE, "total_vocab", mapping["total_vocab"], config.vocab_size)
    dead = config.vocab_size - mapping["live_tokens"]
    return f"{parameters:,} parameters, all finite; {dead:,} of {config.vocab_size:,} embedding rows are dead"


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
