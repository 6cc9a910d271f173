"""Run directories as they are read: found by path or name, and their records opened, finished or still growing.

A finished run's files are the ones that it wrote, by the SHA-256 in its manifest, or they are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes
from duckling_data.base.records import FileRecord, added, decode, file_faults, short
from duckling_data.base.strict_json import JSON_LIMIT, parse_json
from duckling_train.runs.layout import CONFIG, EVALUATIONS, MANIFEST, METRICS, MODEL, RUNS, SUMMARY, read_manifest
from duckling_train.settings import FIELDS, INPUTS, check_type

NAMES_SHOWN = 8
LOG_LIMIT = 32 << 20
"""The largest log that is read, in bytes: some 300,000 lines."""
MODEL_FILE = re.compile(
    r"((generation_|tokenizer_)?config|token_mapping|special_tokens_map|added_tokens|model\.safetensors\.index)\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|README\.md"
)
"""The files of a model's directory."""
BYTES_PER_PARAMETER = 2
"""The fewest: weights in bf16."""
AGAIN = "train the run again with --overwrite"

Written = Mapping[str, FileRecord] | None
"""A finished run's files by their path in the run; None while it is not finished."""


class _Line(msgspec.Struct):
    """What every line of a log has."""

    step: int
    loss: float


class _Summary(msgspec.Struct):
    """The numbers of a `summary.json` that are shown; another version's may lack some."""

    steps: int | None = None
    parameters: int | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    last_logged_step: int | None = None
    steps_per_second: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says about its run."""

    name: str
    """The directory's name."""

    settings: dict[str, Any]
    """`config.json` without its inputs."""

    inputs: dict[str, Any]
    """What it was trained on: digests of dataset and mapping. Empty where the run does not say."""

    steps: list[int]
    """The steps at which a loss was logged, rising."""

    losses: list[float]
    """The logged losses (nats a token), each the mean since the log before."""

    evaluations: list[dict[str, Any]]
    """The lines of `evaluation.jsonl`: step, loss, perplexity, loss_known, rows. Empty where nothing was evaluated."""

    summary: dict[str, Any] | None
    """`summary.json`, or None where the run has not come that far."""

    finished: bool
    """Whether the manifest, which comes last, is there."""


def find_run(workspace: Path, run: str) -> Path:
    """Return the directory of `run`: a run of that name in the workspace, else the path of a run's directory.

    Raises InputError where neither is there.
    """
    named = workspace / RUNS / run
    if run and Path(run).name == run and (named / CONFIG).is_file():
        return named
    if run and (Path(run) / CONFIG).is_file():
        return Path(run)
    raise InputError(f"no run {run!r}: neither a run's directory nor one of {workspace / RUNS} ({_names(workspace)})")


def read_run(path: Path) -> RunRecord:
    """Return the record of the run in directory `path`.

    The last line of a run that is not finished may be half written, and is then left out. Raises InputError for any
    other damage, with the file and the line, and for a file of a finished run that is not the one that it wrote.
    """
    manifest = read_manifest(path)
    written = manifest.files if manifest is not None else None
    content = _read_written(path / CONFIG, JSON_LIMIT, written)
    if content is None:
        raise InputError(f"{path / CONFIG} is missing")
    settings = _parse_object(path / CONFIG, content)
    inputs = settings.pop(INPUTS, None)
    if not isinstance(inputs, dict | None):
        raise InputError(f"{path / CONFIG}: {INPUTS} is {short(inputs)}; expected an object of digests")
    for name, value in settings.items():
        if name in FIELDS:
            check_type(path / CONFIG, name, value)
        elif isinstance(value, dict | list):
            raise InputError(f"{path / CONFIG}: {name} is {short(value)}; expected a single value")
    metrics = _read_lines(path / METRICS, written)
    return RunRecord(
        name=path.resolve().name,
        settings=settings,
        inputs=inputs or {},
        steps=[line["step"] for line in metrics],
        losses=[line["loss"] for line in metrics],
        evaluations=_read_lines(path / EVALUATIONS, written),
        summary=_read_summary(path / SUMMARY, written),
        finished=written is not None,
    )


def model_directory(run_dir: Path) -> Path:
    """Return the directory of the run's model, for `from_pretrained`.

    Raises InputError where the run has none yet, where a finished run's model is not the one that it wrote, and where
    the directory holds more than a model's weights, settings and vocabulary, such as a pickle or code.
    """
    place, manifest = run_dir / MODEL, read_manifest(run_dir)
    if not place.is_dir() and manifest is None:
        raise InputError(f"{run_dir} has no model yet, as it is not finished: duckling-train --resume {run_dir}")
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        # What transformers would load besides: a pickle, code, an adapter of another model.
        if not MODEL_FILE.fullmatch(path.name) or not path.is_file() or path.resolve().parent != place.resolve():
            raise InputError(f"{path} is nothing that a run writes: remove it")
    if manifest is not None:
        expected = {name: record for name, record in manifest.files.items() if name.startswith(f"{MODEL}/")}
        for name, fault in file_faults(run_dir, expected):
            raise _not_written(run_dir, run_dir / name, fault)
        here = (f"{MODEL}/{path.name}" for path in place.iterdir())
        for name in added(here, expected):
            raise _not_written(run_dir, run_dir / name, f"was added: {MANIFEST} does not list it")
    _check_model_size(place)
    return place


def dataset_digest(record: RunRecord) -> str | None:
    """Return the payload digest of the dataset that a run was trained on, or None where it does not say."""
    dataset = record.inputs.get("dataset")
    known = dataset.get("payload_sha256") if isinstance(dataset, dict) else None
    digest = known or (record.summary or {}).get("dataset_payload_sha256")
    return str(digest) if digest else None


def same_data(records: Sequence[RunRecord]) -> bool:
    """Return whether all runs were trained on one dataset. One that does not say counts as another."""
    return len({dataset_digest(record) for record in records}) == 1


def _names(workspace: Path) -> str:
    """Return the names of the workspace's runs, some of them where they are many."""
    names = sorted(path.parent.name for path in (workspace / RUNS).glob(f"*/{CONFIG}"))
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return "which holds " + (", ".join(names[:NAMES_SHOWN]) + more if names else "none")


def _read_written(path: Path, limit: int, written: Written) -> bytes | None:
    """Return the bytes of a file in a run's directory, of a finished run those that it wrote; None for no such file."""
    try:
        content = read_bytes(path, limit)
    except FileNotFoundError:
        content = None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if written is not None:
        expected = written.get(path.name)
        if content is None and expected is not None:
            raise _not_written(path.parent, path, "is missing")
        if content is not None and expected is None:
            raise _not_written(path.parent, path, f"was added: {MANIFEST} does not list it")
        if content is not None and expected is not None and hashlib.sha256(content).hexdigest() != expected.sha256:
            raise _not_written(path.parent, path, "is not what the run wrote (another SHA-256)")
    return content


def _not_written(run_dir: Path, path: Path, fault: str) -> InputError:
    return InputError(f"{path} {fault}; duckling-train verify {run_dir} checks the whole run")


def _parse_object(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON {type(value).__name__}; expected an object")
    return value


def _read_summary(path: Path, written: Written) -> dict[str, Any] | None:
    content = _read_written(path, JSON_LIMIT, written)
    if content is None:
        return None
    summary = _parse_object(path, content)
    decode(summary, _Summary, str(path), AGAIN)
    return summary


def _check_model_size(place: Path) -> None:
    """Raise InputError where the model's settings ask for more parameters than its weights can hold."""
    path = place / CONFIG
    if not path.is_file():
        return
    content = _parse_object(path, read_bytes(path, JSON_LIMIT))
    sizes = [content.get(name, 1) for name in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")]
    if not all(type(size) is int and size >= 1 for size in sizes):
        raise InputError(f"{path}: sizes that are no whole numbers above 0; {AGAIN}")
    layers, width, heads, context, vocabulary = sizes
    parameters = 12 * layers * width * width + (vocabulary + context) * width + heads
    held = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    if BYTES_PER_PARAMETER * parameters > held:
        raise InputError(
            f"{place} cannot be opened: its {CONFIG} describes {parameters:,} parameters, "
            f"more than its weights of {held:,} bytes can hold; {AGAIN}"
        )


def _read_lines(path: Path, written: Written) -> list[dict[str, Any]]:
    """Return a log's lines, each an object with a loss (a number) at a rising step; none where there is no file."""
    *lines, rest = (_read_written(path, LOG_LIMIT, written) or b"").split(b"\n")
    if rest and written is not None:
        lines.append(rest)
    read: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        entry = _parse_line(line)
        if entry is None or (read and entry["step"] <= read[-1]["step"]):
            raise InputError(f"{path}, line {number}: damaged; expected an object with a loss at a rising step")
        read.append(entry)
    return read


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Return a log line's object, or None where it is not one with an integer step and a loss."""
    try:
        entry: dict[str, Any] = parse_json(line)
        msgspec.convert(entry, _Line, strict=True)
    except ValueError:  # of which msgspec's ValidationError is one
        return None
    return entry
