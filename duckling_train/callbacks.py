"""What watches a run: the seed's loss tracker, the metrics file, and the progress bar."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers.trainer_callback import TrainerCallback

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
    """Writes `metrics.jsonl`: a line a log, flushed at once, so that a run can be watched and a crash loses nothing."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8", newline="\n")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append one line: step, loss, learning_rate, grad_norm."""
        if logs and "loss" in logs:
            line = {"step": state.global_step, **{name: logs.get(name) for name in METRICS}}
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar on standard error with the last logged loss and steps/s (unless `quiet`), and the clock of the run.

    `seconds` is the time from the first step's start to the last step's end.
    """

    def __init__(self, steps: int, *, quiet: bool) -> None:
        self.steps = steps
        self.quiet = quiet
        self.seconds = 0.0
        self._start = 0.0
        self._bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock here: what was set up before is not the run's speed."""
        # In a log file a bar is noise: there it moves only every ten seconds.
        interval = 0.1 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(
            total=self.steps,
            desc="training",
            disable=self.quiet,
            mininterval=interval,
            maxinterval=interval,
            bar_format=BAR,
            unit="steps",
        )
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        if self._bar is not None:
            self._bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the loss."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock. The Trainer has read the last loss by now, so an accelerator has finished."""
        self.seconds = time.perf_counter() - self._start

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()
