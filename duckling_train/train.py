"""A training run from the workspace's two files to a finished run directory, in the order of the seed's cells."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import logging as transformers_logging
from transformers import set_seed

from duckling_data.errors import InputError
from duckling_data.files import write_bytes, write_json
from duckling_data.tokenizer import DucklingTokenizer
from duckling_train import run_dir as places
from duckling_train.callbacks import LossTracker, MetricsWriter, Progress
from duckling_train.config import TrainConfig
from duckling_train.data import TrainingData, open_workspace
from duckling_train.engines import reference
from duckling_train.model import build_model, count_params, device_name, n_params, resolve_device
from duckling_train.report import loss_plot
from duckling_train.samples import samples_text

LIBRARIES = ("duckling", "torch", "transformers", "accelerate", "datasets")


def train(
    config: TrainConfig, workspace: Path, run_dir: Path, *, overwrite: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train on `workspace`'s dataset and write the run to `run_dir`. Returns the content of `summary.json`.

    Raises InputError for a missing or unfit workspace, device or run directory, OutsideError when the disk fails.
    """
    transformers_logging.disable_progress_bar()
    config = replace(config, device=resolve_device(config.device))
    refused = places.refusal(run_dir, overwrite=overwrite)
    if refused:
        raise InputError(refused)
    data = open_workspace(workspace, config)
    tokenizer = DucklingTokenizer(data.mapping)
    places.prepare(run_dir, overwrite=overwrite)
    write_json(run_dir / places.CONFIG, config.resolved())

    set_seed(config.seed)
    model = build_model(config)
    tracker = LossTracker()
    seconds = _fit(model, data, config, run_dir, tracker, quiet=quiet)

    model.to("cpu")
    places.save_model(run_dir, model, tokenizer)
    write_bytes(run_dir / places.SAMPLES, samples_text(model, tokenizer).encode())
    plot = loss_plot(tracker.steps, tracker.losses, _title(config, n_params(model)), config.vocab_size)
    write_bytes(run_dir / places.PLOT, plot)
    summary = _summary(config, data, tracker, seconds, n_params(model))
    write_json(run_dir / places.SUMMARY, summary)
    places.write_manifest(run_dir, data.record())
    return summary


def _fit(
    model: Any, data: TrainingData, config: TrainConfig, run_dir: Path, tracker: LossTracker, *, quiet: bool
) -> float:
    """Run the engine under its watchers. Returns the seconds of the training loop."""
    metrics = MetricsWriter(run_dir / places.METRICS)
    progress = Progress(config.steps, quiet=quiet)
    try:
        reference.train(model, data.rows, config, run_dir, [tracker, metrics, progress])
    finally:
        progress.close()
        metrics.close()
    return progress.seconds


def tokens_seen(config: TrainConfig, rows: int) -> int:
    """Return the number of tokens in all batches of a run: an epoch's last batch may be short."""
    per_epoch = -(-rows // config.batch_size)
    epochs, rest = divmod(config.steps, per_epoch)
    return (epochs * rows + rest * config.batch_size) * config.n_positions


def _summary(
    config: TrainConfig, data: TrainingData, tracker: LossTracker, seconds: float, parameters: int
) -> dict[str, Any]:
    tokens = tokens_seen(config, len(data.rows))
    return {
        "steps": config.steps,
        "parameters": parameters,
        "first_loss": tracker.losses[0],
        "last_loss": tracker.losses[-1],
        "last_logged_step": tracker.steps[-1],
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "steps_per_second": round(config.steps / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "device": config.device,
        "device_name": device_name(config.device),
        "dataset_payload_sha256": data.payload_sha256,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _title(config: TrainConfig, parameters: int) -> str:
    return (
        f"Duckling II, {parameters:,} parameters: {config.steps:,} steps, batch {config.batch_size}, "
        f"learning rate {config.learning_rate:g}, seed {config.seed}"
    )


def describe(config: TrainConfig, workspace: Path, run_dir: Path, *, overwrite: bool = False) -> str:
    """Return what `train` would do, without doing it: the resolved configuration, parameters, data, and files."""
    config = replace(config, device=resolve_device(config.device))
    try:
        data = open_workspace(workspace, config)
        dataset = f"{len(data.rows):,} rows of {data.context} tokens, payload {data.payload_sha256[:12]}"
    except InputError as error:
        dataset = f"would be refused: {error}"
    refused = places.refusal(run_dir, overwrite=overwrite)
    lines = [
        json.dumps(config.resolved(), indent=2),
        f"parameters: {count_params(config):,}",
        f"dataset: {dataset}",
        f"would write {run_dir}: {', '.join(places.CONTENTS)}" if not refused else f"would be refused: {refused}",
    ]
    return "\n".join(lines)
