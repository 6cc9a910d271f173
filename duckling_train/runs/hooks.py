"""What watches every run, on any engine: the log of losses, the progress bar and clock, evaluation, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from duckling_data.base.disk import disk_errors
from duckling_data.base.files import open_to_append, write_all
from duckling_data.base.progress import BAR, Reporter, nothing
from duckling_data.base.signals import Stopped, noted_stop
from duckling_train.config import TrainConfig
from duckling_train.data import COLUMN, POSITION, PackedRows
from duckling_train.engines.base import DivergedError, Hook, LogLine, StepView
from duckling_train.model import story_mask
from duckling_train.precision import uses_autocast
from duckling_train.runs.checkpoint import Checkpoints

if TYPE_CHECKING:
    from duckling_train.engines.base import Model

ROWS_A_BATCH = 4
"""4 × 512 × 8,192 float32 logits are 67 MB."""


class MetricsWriter(Hook):
    """Appends to `metrics.jsonl`: a line a log, written at once: a run can be watched, and a crash loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, line: LogLine) -> None:
        """Append one line: step, loss, learning_rate, grad_norm."""
        append_line(self.path, dataclasses.asdict(line))


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append a record to a JSON Lines file. Raises OutsideError when the disk fails."""
    line = json.dumps(record, allow_nan=False) + "\n"
    with disk_errors(path), open_to_append(path) as file:
        write_all(file, line.encode())


class Progress(Hook):
    """A bar on standard error with the last logged loss and steps/s (unless `quiet`), and the clock of the run.

    `start` is the step that the run continues from, `seconds` the training seconds before it.
    """

    def __init__(self, steps: int, *, quiet: bool, start: int = 0, seconds: float = 0.0) -> None:
        every = 0.1 if sys.stderr.isatty() else 10.0  # in a log file a bar is noise
        self.reporter = Reporter(quiet)
        self._bar = tqdm(
            total=steps, initial=start, desc="training", disable=quiet, mininterval=every, maxinterval=every,
            bar_format=BAR, unit=" steps",
        )  # fmt: skip
        self._seconds = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds spent in optimizer steps so far, without set-up and without what `paused` leaves out."""
        return self._seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock: what happens inside is not the speed of training."""
        self._stop()
        try:
            yield
        finally:
            self._since = time.perf_counter()

    def _stop(self) -> None:
        self._seconds, self._since = self.seconds, None

    def begin(self, view: StepView) -> None:
        """Start the clock here: the set-up before is not the run's speed."""
        self._since = time.perf_counter()

    def log(self, line: LogLine) -> None:
        """Show the loss."""
        self._bar.set_postfix_str(f"loss {line.loss:.4f}", refresh=False)

    def step(self, view: StepView) -> None:
        """Count a step, once where several runs take it."""
        self._bar.update(view.step - self._bar.n)

    def end(self, view: StepView) -> None:
        """Stop the clock."""
        self._stop()

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()


def evaluated_rows(rows: PackedRows, limit: int | None) -> int:
    """Return how many rows an evaluation of at most `limit` rows (None: all) takes."""
    return len(rows) if limit is None else min(limit, len(rows))


def evaluate(
    model: Model, rows: PackedRows, limit: int | None, unk_id: int, *, autocast: bool,
    done: Callable[[int], object] = nothing, logits_of: Callable[[Any, Any], torch.Tensor] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return `loss`, `perplexity`, `loss_known` and `rows` of the first `limit` rows (None: all).

    `loss` is the mean cross-entropy (nats) of all predictions, n - 1 a row of n tokens (the Trainer divides by n, see
    `model.py`); `perplexity` its exponential, None where too large; `loss_known` the mean over targets other
    than `unk_id`, None where there are none. Under the policy `most-frequent` `unk_id` is the id of a real `.` as well.
    Where the rows have positions, a token attends only to its own story, as in training with --mask-across-stories.
    Sums are float64; the model's mode is kept; no random number is drawn. `done` is told how many rows were evaluated,
    batch by batch. `logits_of` computes the logits of ids and a mask in the place of the model's call.
    """
    count = evaluated_rows(rows, limit)
    sums = np.zeros(4)  # loss, predictions, loss of known targets, known targets
    was_training, device = model.training, model.get_parameter("transformer.wte.weight").device
    model.train(False)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        for first in range(0, count, ROWS_A_BATCH):
            batch = [rows[index] for index in range(first, min(first + ROWS_A_BATCH, count))]
            ids = torch.from_numpy(np.stack([row[COLUMN] for row in batch]).astype(np.int64)).to(device)
            mask = None
            if rows.positions is not None:
                mask = story_mask(np.stack([row[POSITION] for row in batch])).to(device)
            made = model(ids, attention_mask=mask).logits if logits_of is None else logits_of(ids, mask)
            logits, targets = made[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()
            losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu().double()
            known = (targets != unk_id).cpu()
            sums += np.array([losses.sum(), len(losses), losses[known].sum(), known.sum()], dtype=np.float64)
            done(len(batch))
    model.train(was_training)
    loss = float(sums[0] / sums[1])
    loss_known = float(sums[2] / sums[3]) if sums[3] else None
    perplexity = math.exp(loss) if loss < 700 else None  # exp of more overflows float64
    return {"loss": loss, "perplexity": perplexity, "loss_known": loss_known, "rows": count}


class Evaluator(Hook):
    """Logs an evaluation every `config.eval_steps` steps and after the last; the run's clock stops meanwhile."""

    def __init__(self, rows: PackedRows, config: TrainConfig, unk_id: int, path: Path, clock: Progress) -> None:
        self.rows = rows
        self.config = config
        self.unk_id = unk_id
        self.path = path
        self.clock = clock

    def step(self, view: StepView) -> None:
        """Evaluate where it is due. Raises DivergedError where the loss is not finite."""
        if not self.config.is_due(view.step, self.config.eval_steps):
            return
        limit, autocast = self.config.eval_rows, uses_autocast(self.config.precision)
        count = evaluated_rows(self.rows, limit)
        with self.clock.paused(), self.clock.reporter.bar("evaluate", count, "rows") as bar:
            result = evaluate(
                view.model, self.rows, limit, self.unk_id, autocast=autocast, done=bar.update, logits_of=view.logits_of
            )
            if not math.isfinite(result["loss"]):
                raise DivergedError(f"the validation loss is {result['loss']} after step {view.step}")
            append_line(self.path, {"step": view.step, **result})


class CheckpointWriter(Hook):
    """Writes a checkpoint every `config.checkpoint_steps` steps and after the last; the run's clock stops meanwhile.

    It comes after the hooks that write logs: a checkpoint holds the logs up to its step. Where a signal waits for the
    end of the step (`held_stops`), it writes one and raises Stopped.
    """

    def __init__(
        self, checkpoints: Checkpoints, config: TrainConfig, clock: Progress, others: Sequence[Hook] = ()
    ) -> None:
        self.checkpoints, self.others = checkpoints, others
        self.config = config
        self.clock = clock

    def step(self, view: StepView) -> None:
        """Write one where it is due, or asked for by a signal. Raises Stopped after the latter."""
        signalled, every = noted_stop(), self.config.checkpoint_steps
        if every and (signalled or self.config.is_due(view.step, every)):
            with self.clock.paused():
                for hook in self.others:
                    hook.save()
                state = view.state()
                self.checkpoints.write(view.step, state.files, {**state.values, "seconds": self.clock.seconds})
            self.checkpoints.say_kept(view.step)
        if signalled:
            raise Stopped(signalled)
