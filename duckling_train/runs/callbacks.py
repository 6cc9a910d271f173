"""What watches a run: the seed's loss tracker, the metrics file, and the progress bar."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers.trainer_callback import TrainerCallback

from duckling_data.base.disk import disk_errors

METRICS = ("loss", "learning_rate", "grad_norm")
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


class LossTracker(TrainerCallback):  # type: ignore[misc]
    """The seed's tracker: `losses[i]` is the mean loss (nats a token) logged at step `steps[i]`."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.steps: list[int] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Keep a logged loss."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.steps.append(state.global_step)


class MetricsWriter(TrainerCallback):  # type: ignore[misc]
    """Appends to `metrics.jsonl`: a line a log, written at once: a run can be watched, and a crash loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append one line: step, loss, learning_rate, grad_norm."""
        if state.is_world_process_zero and logs and "loss" in logs:
            append_line(self.path, {"step": state.global_step, **{name: logs.get(name) for name in METRICS}})


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append a record to a JSON Lines file. Raises OutsideError when the disk fails."""
    line = json.dumps(record, allow_nan=False) + "\n"
    with disk_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line)


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar on standard error with the last logged loss and steps/s (unless `quiet`), and the clock of the run.

    `start` is the step that the run goes on from, `seconds` the training seconds before it.
    """

    def __init__(self, steps: int, *, quiet: bool, start: int = 0, seconds: float = 0.0) -> None:
        # In a log file a bar is noise: there it moves only every ten seconds.
        interval = 0.1 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc="training",
            disable=quiet,
            mininterval=interval,
            maxinterval=interval,
            bar_format=BAR,
            unit="steps",
        )
        self._seconds = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds spent in optimizer steps so far, what set them up and what `paused` excepted."""
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

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock here: what was set up before is not the run's speed."""
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self._bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the loss."""
        if logs and "loss" in logs:
            self._bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock. The Trainer has read the last loss by now, so an accelerator has finished."""
        self._stop()

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()
