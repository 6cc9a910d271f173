"""What watches every run, on any engine: the log of losses, the progress bar with the run's clock, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from duckling_data.base.disk import disk_errors
from duckling_train.config import TrainConfig
from duckling_train.engines.base import Hook, LogLine, StepView
from duckling_train.runs.checkpoint import Checkpoints

METRICS = ("loss", "learning_rate", "grad_norm")
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


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
    with disk_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line)


class Progress(Hook):
    """A bar on standard error with the last logged loss and steps/s (unless `quiet`), and the clock of the run.

    `start` is the step that the run continues from, `seconds` the training seconds before it.
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
        """Count a step."""
        self._bar.update()

    def end(self, view: StepView) -> None:
        """Stop the clock."""
        self._stop()

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()


class CheckpointWriter(Hook):
    """Writes a checkpoint every `config.checkpoint_steps` steps and after the last; the run's clock stops meanwhile.

    It comes after the hooks that write logs: a checkpoint holds the logs up to its step.
    """

    def __init__(self, checkpoints: Checkpoints, config: TrainConfig, clock: Progress) -> None:
        self.checkpoints = checkpoints
        self.config = config
        self.clock = clock

    def step(self, view: StepView) -> None:
        """Write one where it is due."""
        every = self.config.checkpoint_steps
        if every and (view.step % every == 0 or view.step >= self.config.steps):
            with self.clock.paused():
                state = view.state()
                self.checkpoints.write(view.step, state.files, {**state.values, "seconds": self.clock.seconds})
