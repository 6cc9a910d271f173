"""Hooks as callbacks of any Hugging Face Trainer, the seed's loss tracker, and progress as printed lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.trainer_callback import TrainerCallback

from duckling_train.engines.base import Hook, LogLine, StepView
from duckling_train.engines.reference.view import TrainerView
from duckling_train.processes import process_rank

REPORTS = 10
"""`ProgressLines` prints about this many lines."""


class HookCallback(TrainerCallback):
    """Passes a Trainer's events on to hooks, with a view of its run."""

    def __init__(self, view: TrainerView, hooks: Sequence[Hook]) -> None:
        self.view, self.hooks = view, hooks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        self.view.begin(state.global_step, kwargs["model"], kwargs["optimizer"])
        for hook in self.hooks:
            hook.begin(self.view)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the hooks what they need of the step."""
        self.view.begin_step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the gradient, where it is needed."""
        self.view.keep_gradient()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End. The Trainer has read the last loss by now, so an accelerator has finished."""
        self.view.end()
        for hook in self.hooks:
            hook.end(self.view)


class TrainerHook(HookCallback, Hook):
    """A hook that is a callback, too: for an engine, for `lab.train`, and for any Trainer."""

    def __init__(self) -> None:
        super().__init__(TrainerView((self,)), (self,))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the step."""
        self.view.step = state.global_step
        self.step(self.view)


class DropoutSeeds(TrainerCallback):
    """Seeds what dropout draws at each step, from the run's seed, the step and the process: the same when resumed.

    The order of the rows is drawn from the seed and the epoch alone, and stays as it is without dropout.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed torch's global streams, of every device, by the generator Philox4x64-10."""
        counter = [0, 0, 1, process_rank()]  # stochastic rounding has a 0 in place of the 1
        torch.manual_seed(int(np.random.Philox(key=[self.seed, state.global_step], counter=counter).random_raw()))


class LossTracker(TrainerCallback):
    """The seed's tracker: `losses[i]` is the mean loss (nats a token) logged at step `steps[i]`.

    >>> tracker = LossTracker()  # one of a Trainer's callbacks; `Experiment.train` returns its own
    >>> tracker.on_log(None, TrainerState(global_step=1), None, {"loss": 9.0}); tracker.losses
    [9.0]
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.steps: list[int] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Keep a logged loss."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.steps.append(state.global_step)


class ProgressLines(TrainerCallback):
    """Prints the step, the logged loss and steps/s about REPORTS times a run: for a notebook and for a log."""

    def start(self) -> None:
        """Start the clock."""
        self._start, self._next = time.perf_counter(), 0.0

    def show(self, step: int, steps: int, loss: float) -> None:
        """Print, if another tenth of the run is done."""
        if step >= self._next:
            speed = step / (time.perf_counter() - self._start)
            print(f"step {step:{len(f'{steps:,}')},} of {steps:,}   loss {loss:.4f}   {speed:.1f} steps/s")
            self._next = (step * REPORTS // steps + 1) * steps / REPORTS

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Print a logged loss."""
        if logs and "loss" in logs:
            self.show(state.global_step, state.max_steps, logs["loss"])


class TrackerHook(Hook):
    """Keeps the logged losses in a LossTracker and prints progress: what a Trainer's callbacks do, on any engine."""

    def __init__(self, tracker: LossTracker, steps: int) -> None:
        self.tracker, self.steps, self._lines = tracker, steps, ProgressLines()

    def begin(self, view: StepView) -> None:
        """Start the clock."""
        self._lines.start()

    def log(self, line: LogLine) -> None:
        """Keep and print a logged loss."""
        self.tracker.losses.append(line.loss)
        self.tracker.steps.append(line.step)
        self._lines.show(line.step, self.steps, line.loss)
