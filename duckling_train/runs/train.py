"""A training run from the workspace's two files to a finished run directory, in the order of the seed's cells."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from duckling_data.base import plotting
from duckling_data.base.disk import check_room
from duckling_data.base.errors import InputError
from duckling_data.base.files import write_bytes
from duckling_data.base.locks import beside, held, wait_until_free
from duckling_data.base.progress import Reporter
from duckling_data.base.signals import held_stops, keep
from duckling_data.base.strict_json import write_json
from duckling_train.config import TrainConfig, named
from duckling_train.data import PackedRows, TrainingData, open_validation, open_workspace, refuse_short
from duckling_train.engines import REFERENCE, choose_engine, load_engine
from duckling_train.engines.base import Checkpoint, Hook, Job
from duckling_train.gpt2 import as_transformers
from duckling_train.model import device_name, resolve_device
from duckling_train.plot import loss_plot
from duckling_train.processes import is_main_process, process_count
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import KEPT, Checkpoints
from duckling_train.runs.generate import name_special_tokens, samples_text
from duckling_train.runs.hooks import CheckpointWriter, Evaluator, MetricsWriter, Progress
from duckling_train.runs.read import RunRecord, read_run
from duckling_train.settings import INPUTS

LIBRARIES = ("duckling", "torch", "transformers", "accelerate", "datasets", "numpy")


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

    def checkpoints(self) -> Checkpoints:
        """Return the run's checkpoints."""
        return Checkpoints(self.run_dir, self.config, self.inputs)


def train(
    config: TrainConfig, workspace: Path, run_dir: Path, *, overwrite: bool = False, quiet: bool = False,
    hooks: Sequence[Hook] = (),
) -> dict[str, Any]:  # fmt: skip
    """Train on `workspace`'s dataset and write the run to `run_dir`. Returns the summary; beside the main process {}.

    `hooks` watch it besides the run's own.

    Raises InputError for a missing or unfit workspace, device or run directory, for one in which another process trains
    and for a loss that is not finite, OutsideError when the disk fails.
    """
    if is_main_process() and (refused := layout.refusal(run_dir, overwrite=overwrite)):
        raise InputError(refused)
    prepared = replace(prepare(resolve(config), workspace, run_dir, quiet=quiet), hooks=hooks)
    refuse_short(prepared.config, prepared.data)
    prepared = proven(prepared, asked=config.engine)
    with alone(run_dir):
        if is_main_process():
            layout.prepare(run_dir, overwrite=overwrite)
            write_json(run_dir / layout.CONFIG, {**prepared.config.resolved(), INPUTS: prepared.inputs})
            prepared.checkpoints().say_kept()
        return run(prepared, None)


@contextlib.contextmanager
def alone(run_dir: Path) -> Iterator[None]:
    """Hold the run directory's lock. Raises InputError that names the process that holds it, and as `make_folder`."""
    with contextlib.ExitStack() as stack:
        if is_main_process():
            layout.make_folder(run_dir.parent, run_dir)
            stack.enter_context(held(beside(run_dir), run_dir, waiting=None))
        yield


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
        config, why = replace(config, engine=REFERENCE, arithmetic="auto"), str(error).rpartition(": ")[0]
    products = f"; products in {config.arithmetic}" if config.arithmetic != "auto" else ""
    say(f"engine {config.engine}: {why}{products}")
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
    every = config.checkpoint_steps
    checkpoints = (-(-config.steps // every) if config.keep_checkpoints else KEPT + 1) if every else 0
    needed = 4 * config.parameters * (1 + 3 * checkpoints)  # in each checkpoint weights and two moments
    check_room(run_dir, needed, "the run's model and checkpoints", layout.elsewhere())
    return PreparedRun(config, data, validation, data.record(validation), run_dir, quiet or not is_main_process())


def run(prepared: PreparedRun, start: Checkpoint | None) -> dict[str, Any]:
    """Train from `start` (None: the beginning) to the end and finish the run directory. Returns the summary."""
    config, run_dir = prepared.config, prepared.run_dir
    plotting.load()  # a fault in matplotlib is reported before the training, not after it
    model = load_engine(config.engine).build(config)
    seconds = _fit(prepared, Job(config, model, prepared.data.rows, run_dir, start))
    if not is_main_process():
        return {}
    from transformers import logging as transformers_logging

    from duckling_data.tokens.tokenizer import DucklingTokenizer

    transformers_logging.disable_progress_bar()
    tokenizer = DucklingTokenizer.for_model(prepared.data.mapping, config.n_positions)
    trained = as_transformers(model)
    name_special_tokens(trained, tokenizer)
    layout.save_model(run_dir, trained, tokenizer)
    write_bytes(run_dir / layout.SAMPLES, samples_text(trained, tokenizer, config.steps).encode())
    record = read_run(run_dir)
    title = (
        f"Duckling II, {config.parameters:,} parameters: {config.steps:,} steps, batch {config.batch_size}, "
        f"learning rate {config.learning_rate:g}, seed {config.seed}"
    )
    write_bytes(run_dir / layout.PLOT, loss_plot(record.steps, record.losses, title, config.vocab_size))
    summary = _summary(prepared, record, seconds)
    write_json(run_dir / layout.SUMMARY, summary)
    layout.write_manifest(run_dir, prepared.inputs)
    keep("the run is finished and kept")
    prepared.checkpoints().finish()
    return summary


def _fit(prepared: PreparedRun, job: Job) -> float:
    """Run the engine under the run's hooks. Returns the seconds spent in its steps."""
    config, checkpoints, start = job.config, prepared.checkpoints(), job.start
    earlier = float(start.state.get("seconds", 0.0)) if start is not None else 0.0
    progress = Progress(config.steps, quiet=prepared.quiet, start=start.step if start else 0, seconds=earlier)
    hooks: list[Hook] = [MetricsWriter(job.run_dir / layout.METRICS), progress, *prepared.hooks]
    if prepared.validation is not None:
        log = job.run_dir / layout.EVALUATIONS
        hooks.append(Evaluator(prepared.validation, config, prepared.data.mapping["unk_id"], log, progress))
    hooks.append(CheckpointWriter(checkpoints, config, progress))
    # Of several processes one would wait for the others: each is stopped where it is.
    one = held_stops("it ends after this step") if config.processes == 1 else contextlib.nullcontext()
    try:
        with one:
            (ended,) = load_engine(config.engine).fit([job], [hooks])
    finally:
        progress.close()
    if ended is not None:
        last = checkpoints.newest()
        kept = f"the checkpoint of step {last.step} is kept in {job.run_dir}" if last else "no checkpoint was written"
        advice = f"try a lower {named('learning_rate')}, or {named('warmup_steps')}"
        raise InputError(f"{ended}: {advice}; {kept}") from ended
    return progress.seconds


def tokens_seen(config: TrainConfig, rows: int) -> int:
    """Return the number of tokens in all batches of a run.

    An epoch's last batch may be short; several processes are given equal parts: there the epoch's first rows fill it.
    """
    per_epoch = -(-rows // config.batch_size)
    epochs, rest = divmod(config.steps, per_epoch)
    in_an_epoch = rows if config.processes == 1 else per_epoch * config.batch_size
    return (epochs * in_an_epoch + rest * config.batch_size) * config.n_positions


def _summary(prepared: PreparedRun, record: RunRecord, seconds: float) -> dict[str, Any]:
    config = prepared.config
    tokens = tokens_seen(config, len(prepared.data.rows))
    return {
        "steps": config.steps,
        "parameters": config.parameters,
        "first_loss": record.losses[0],
        "last_loss": record.losses[-1],
        "last_logged_step": record.steps[-1],
        "validation": record.evaluations[-1] if record.evaluations else None,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "steps_per_second": round(config.steps / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "device": config.device,
        "device_name": device_name(config.device),
        "threads": config.threads,
        "processes": config.processes,
        "dataset_payload_sha256": prepared.data.payload_sha256,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }
