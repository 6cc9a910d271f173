"""Prepared runs, one or several at once, from the first step to finished run directories."""

from __future__ import annotations

import contextlib
import itertools
import platform
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from duckling_data.base import plotting
from duckling_data.base.errors import InputError
from duckling_data.base.files import write_bytes
from duckling_data.base.progress import Reporter
from duckling_data.base.signals import held_stops, keep
from duckling_data.base.strict_json import write_json
from duckling_train.config import TrainConfig, named
from duckling_train.engines import load_engine
from duckling_train.engines.base import Checkpoint, DivergedError, Hook, Job
from duckling_train.model import device_name
from duckling_train.plot import loss_plot
from duckling_train.processes import is_main_process
from duckling_train.recording.light import DynamicsWriter
from duckling_train.runs import layout
from duckling_train.runs.generate import name_special_tokens, samples_text
from duckling_train.runs.hooks import CheckpointWriter, Evaluator, MetricsWriter, Progress, append_line
from duckling_train.runs.prepared import PreparedRun
from duckling_train.runs.read import RunRecord, read_run
from duckling_train.runs.recorded import budget_line, finish_record, recording_of

if TYPE_CHECKING:
    from duckling_train.engines.base import Model

LIBRARIES = ("duckling", "torch", "transformers", "accelerate", "datasets", "numpy")


def run(prepared: PreparedRun, start: Checkpoint | None) -> dict[str, Any]:
    """Train from `start` (None: the beginning) to the end and finish the run directory. Returns the summary.

    Raises InputError for a loss that is not finite.
    """
    (end,) = run_together([prepared], [start])
    if isinstance(end, InputError):
        raise end
    return end


def run_together(runs: Sequence[PreparedRun], starts: Sequence[Checkpoint | None]) -> list[dict[str, Any] | InputError]:
    """Train runs of one engine, all from the same step, and finish their directories.

    Returns for each run its summary, or why it ended early. Beside the main process the summaries are empty.
    """
    plotting.load()  # a fault in matplotlib is reported before the training, not after it
    config, start = runs[0].config, starts[0]
    if config.record != "none":
        Reporter(runs[0].quiet).say(budget_line(config, runs[0].data.mapping, runs[0].run_dir, len(runs)))
    engine = load_engine(config.engine)
    jobs = [
        Job(each.config, engine.build(each.config), each.data.rows, each.run_dir, begun)
        for each, begun in zip(runs, starts, strict=True)
    ]
    seconds = float(start.state.get("seconds", 0.0)) if start is not None else 0.0
    clock = Progress(config.steps, quiet=runs[0].quiet, start=start.step if start else 0, seconds=seconds)
    # Of several processes one would wait for the others: each is stopped where it is.
    one = held_stops("it ends after this step") if config.processes == 1 else contextlib.nullcontext()
    hooks = [_hooks(each, job.model, clock) for each, job in zip(runs, jobs, strict=True)]
    try:
        with one:
            ends = engine.fit(jobs, hooks)
    finally:
        clock.close()
        for hook in itertools.chain(*hooks):
            hook.close()
    if not is_main_process():
        return [{} for _ in runs]
    return [
        _ended_early(each, end) if end is not None else _finish(each, job.model, clock.seconds, len(runs))
        for each, job, end in zip(runs, jobs, ends, strict=True)
    ]


def _hooks(prepared: PreparedRun, fresh: Model, clock: Progress) -> list[Hook]:
    """Return what watches a run; `fresh` is its model as it was drawn, also where it resumes."""
    config, run_dir = prepared.config, prepared.run_dir
    first, live = fresh.transformer.wte.weight, prepared.data.mapping["live_tokens"]
    dynamics = DynamicsWriter(partial(append_line, run_dir / layout.DYNAMICS), first, live, config.logging_steps)
    hooks: list[Hook] = [MetricsWriter(run_dir / layout.METRICS), dynamics, clock, *prepared.hooks]
    if config.record != "none":
        hooks.append(recording_of(config, prepared.data.mapping, prepared.inputs, run_dir))
    if prepared.validation is not None:
        log = run_dir / layout.EVALUATIONS
        hooks.append(Evaluator(prepared.validation, config, prepared.data.mapping["unk_id"], log, clock))
    return [*hooks, CheckpointWriter(prepared.checkpoints(), config, clock, hooks)]


def _ended_early(prepared: PreparedRun, end: DivergedError) -> InputError:
    """Return the error of a run that diverged: what happened, what may help, what is kept."""
    last = prepared.checkpoints().newest()
    where = f"the checkpoint of step {last.step} is kept in {prepared.run_dir}" if last else "no checkpoint was written"
    advice = f"try a lower {named('learning_rate')}, or {named('warmup_steps')}"
    error = InputError(f"{end}: {advice}; {where}")
    error.__cause__ = end
    return error


def _finish(prepared: PreparedRun, model: Model, seconds: float, together: int) -> dict[str, Any]:
    """Write what a run has at its end, the manifest last. Returns the summary."""
    from duckling_data.tokens.tokenizer import DucklingTokenizer

    config, run_dir = prepared.config, prepared.run_dir
    tokenizer = DucklingTokenizer.for_model(prepared.data.mapping, config.n_positions, prepared.data.base)
    torch.nn.Module.to(model, "cpu")
    name_special_tokens(model, tokenizer)
    layout.save_model(run_dir, model, tokenizer)
    write_bytes(run_dir / layout.SAMPLES, samples_text(model, tokenizer, config.steps).encode())
    record = read_run(run_dir)
    title = (
        f"Duckling II, {config.parameters:,} parameters: {config.steps:,} steps, batch {config.batch_size}, "
        f"learning rate {config.learning_rate:g}, seed {config.seed}"
    )
    write_bytes(run_dir / layout.PLOT, loss_plot(record.steps, record.losses, title, config.vocab_size))
    finish_record(run_dir)
    summary = _summary(prepared, record, seconds, together)
    write_json(run_dir / layout.SUMMARY, summary)
    layout.write_manifest(run_dir, prepared.inputs)
    keep("the run is finished and kept")
    prepared.checkpoints().finish()
    return summary


def tokens_seen(config: TrainConfig, rows: int) -> int:
    """Return the number of tokens in all batches of a run.

    An epoch's last batch may be short; several processes are given equal parts: there the epoch's first rows fill it.
    """
    per_epoch = -(-rows // config.batch_size)
    epochs, rest = divmod(config.steps, per_epoch)
    in_an_epoch = rows if config.processes == 1 else per_epoch * config.batch_size
    return (epochs * in_an_epoch + rest * config.batch_size) * config.n_positions


def _summary(prepared: PreparedRun, record: RunRecord, seconds: float, together: int) -> dict[str, Any]:
    config = prepared.config
    tokens = tokens_seen(config, len(prepared.data.rows))
    return {
        "steps": config.steps,
        "parameters": config.parameters,
        "first_loss": record.losses[0],
        "last_loss": record.losses[-1],
        "last_logged_step": record.steps[-1],
        "validation": record.evaluations[-1] if record.evaluations else None,
        "dynamics": record.last_dynamics,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "trained_together": together,
        "steps_per_second": round(config.steps / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "device": config.device,
        "device_name": device_name(config.device),
        "threads": config.threads,
        "processes": config.processes,
        "dataset_payload_sha256": prepared.data.payload_sha256,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }
