"""Hooks as callbacks of any Hugging Face Trainer, the seed's loss tracker, and progress as printed lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel
from transformers.trainer_callback import TrainerCallback

from duckling_data.base.errors import InputError
from duckling_train.engines.base import GRADIENT, HIDDEN, EngineState, Hook, LogLine, StepView
from duckling_train.optimizers import MOMENTS
from duckling_train.processes import process_rank

REPORTS = 10
"""`ProgressLines` prints about this many lines."""


class TrainerView(StepView):
    """A step of any Hugging Face Trainer's run, as its callbacks see it."""

    gradient: torch.Tensor | None = None
    hidden: torch.Tensor | None = None

    def __init__(self, needs: frozenset[str]) -> None:
        self._needs = needs
        self._model: GPT2LMHeadModel | None = None
        self._optimizer: Any = None
        self._handle: Any = None

    def begin(self, step: int, model: GPT2LMHeadModel, optimizer: Any) -> None:
        """Show a run from this step on."""
        self.step, self._model, self._optimizer = step, model, optimizer
        if HIDDEN in self._needs:
            self._handle = model.transformer.ln_f.register_forward_hook(self._keep_hidden)

    def keep_gradient(self) -> None:
        """Keep the gradient that the optimizer is about to apply: the Trainer drops it afterwards."""
        if GRADIENT in self._needs:
            self.gradient = self.model.transformer.wte.weight.grad

    def end(self) -> None:
        """Take the hook off the model's layers."""
        if self._handle is not None:
            self._handle.remove()

    def _keep_hidden(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if torch.is_grad_enabled():  # a training step's, not an evaluation's
            self.hidden = output.detach()

    @property
    def model(self) -> GPT2LMHeadModel:
        """The model that trains."""
        assert self._model is not None
        return self._model

    @property
    def loss(self) -> float | None:
        """None: a callback is not shown the loss of a step."""
        return None

    @property
    def moments(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """AdamW's moments of W."""
        optimizer = getattr(self._optimizer, "optimizer", self._optimizer)  # accelerate wraps it
        kept = optimizer.state.get(self.model.transformer.wte.weight) if optimizer is not None else None
        return (kept[MOMENTS[0]], kept[MOMENTS[1]]) if kept and MOMENTS[0] in kept else None

    def state(self) -> EngineState:
        """Raise InputError: checkpoints of a Trainer of one's own are its own."""
        raise InputError("a Trainer of one's own has no state for Duckling's checkpoints; use duckling-train for those")


class HookCallback(TrainerCallback):
    """Passes a Trainer's events on to hooks, with a view of its run."""

    def __init__(self, view: TrainerView, hooks: Sequence[Hook]) -> None:
        self.view, self.hooks = view, hooks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        self.view.begin(state.global_step, kwargs["model"], kwargs["optimizer"])
        for hook in self.hooks:
            hook.begin(self.view)

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
        super().__init__(TrainerView(self.needs), (self,))

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
