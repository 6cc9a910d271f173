"""Run directories as they are read: found by path or name, and their records opened, finished or still growing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.files import sha256_file
from duckling_data.base.records import short
from duckling_data.base.strict_json import JSON_LIMIT, parse_json
from duckling_train.runs.layout import CONFIG, EVALUATIONS, METRICS, MODEL, RUNS, SUMMARY
from duckling_train.runs.written import check_written, parse_object, read_written, written_files
from duckling_train.settings import FIELDS, INPUTS, check_type

NAMES_SHOWN = 8
LOG_LIMIT = 32 << 20
"""The largest log that is read, in bytes: some 300,000 lines."""
MODEL_FILE = re.compile(
    r"((generation_|tokenizer_)?config|token_mapping|special_tokens_map|added_tokens|model\.safetensors\.index)\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|README\.md"
)
"""What may stand in a model's directory."""
BYTES_PER_PARAMETER = 2
"""The fewest: weights in bf16."""


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
    written = written_files(path)
    finished = written is not None
    settings = _read_object(path / CONFIG, written)
    inputs = settings.get(INPUTS)
    if not isinstance(inputs, dict | None):
        raise InputError(f"{path / CONFIG} has {INPUTS} {short(inputs)}; expected an object of digests")
    for name, value in settings.items():
        if name in FIELDS:
            check_type(path / CONFIG, name, value)
        elif name != INPUTS and isinstance(value, dict | list):
            raise InputError(f"{path / CONFIG} has {name} {short(value)}; expected a single value")
    metrics = _read_lines(path / METRICS, written)
    return RunRecord(
        name=path.resolve().name,
        settings={name: value for name, value in settings.items() if name != INPUTS},
        inputs=inputs or {},
        steps=[line["step"] for line in metrics],
        losses=[line["loss"] for line in metrics],
        evaluations=_read_lines(path / EVALUATIONS, written),
        summary=_read_summary(path / SUMMARY, written),
        finished=finished,
    )


def model_directory(run_dir: Path) -> Path:
    """Return the directory of the run's model, for `from_pretrained`.

    Raises InputError where the run has none yet, where a finished run's model is not the one that it wrote, and where
    the directory holds more than a model's weights, settings and vocabulary, such as a pickle or code.
    """
    place, written = run_dir / MODEL, written_files(run_dir)
    if not place.is_dir() and written is None:
        raise InputError(f"{run_dir} has no model yet, as it is not finished: duckling-train --resume {run_dir}")
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        # What transformers would load besides: a pickle, code, an adapter of another model.
        if not MODEL_FILE.fullmatch(path.name) or not path.is_file() or path.resolve().parent != place.resolve():
            raise InputError(f"{path} is nothing that a run writes: remove it")
    if written is not None:
        here = {f"{MODEL}/{path.name}" for path in place.iterdir()} if place.is_dir() else set()
        for name in sorted(here | {name for name in written if name.startswith(f"{MODEL}/")}):
            check_written(run_dir / name, written.get(name), sha256_file(run_dir / name) if name in here else None)
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


def _read_object(path: Path, written: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the object in a JSON file. Raises InputError where there is none."""
    content = read_written(path, JSON_LIMIT, written)
    if content is None:
        raise InputError(f"{path} is missing")
    return parse_object(path, content)


def _read_summary(path: Path, written: dict[str, str] | None) -> dict[str, Any] | None:
    content = read_written(path, JSON_LIMIT, written)
    if content is None:
        return None
    summary = parse_object(path, content)
    for name in ("parameters", "steps_per_second", "tokens_per_second"):
        if not isinstance(summary.get(name), int | float | None):
            raise InputError(f"{path} has {name} {short(summary[name])}; expected a number")
    return summary


def _check_model_size(place: Path) -> None:
    """Raise InputError where the model's settings ask for more parameters than its weights can hold."""
    path = place / CONFIG
    if not path.is_file():
        return
    content = _read_object(path)
    sizes = [content.get(name, 1) for name in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")]
    if not all(type(size) is int and size >= 1 for size in sizes):
        raise InputError(f"{path} has sizes that are no whole numbers above 0: train the run again with --overwrite")
    layers, width, heads, context, vocabulary = sizes
    parameters = 12 * layers * width * width + (vocabulary + context) * width + heads
    held = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    if BYTES_PER_PARAMETER * parameters > held:
        raise InputError(
            f"{place} cannot be opened: its {CONFIG} describes {parameters:,} parameters, "
            f"more than its weights of {held:,} bytes can hold: "
            "train the run again with --overwrite"
        )


def _read_lines(path: Path, written: dict[str, str] | None) -> list[dict[str, Any]]:
    """Return a log's lines, each an object with a loss (a number) at a rising step; none where there is no file."""
    *lines, rest = (read_written(path, LOG_LIMIT, written) or b"").split(b"\n")
    if rest and written is not None:
        lines.append(rest)
    read: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        entry = _parse(line)
        if entry is None or (read and entry["step"] <= read[-1]["step"]):
            raise InputError(f"{path}, line {number}: damaged; expected an object with a loss at a rising step")
        read.append(entry)
    return read


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a log line's object, or None where it is not one with an integer step and a loss."""
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    fine = isinstance(entry, dict) and type(entry.get("step")) is int and type(entry.get("loss")) in (int, float)
    return entry if fine else None
