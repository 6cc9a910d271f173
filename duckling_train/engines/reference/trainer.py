"""The Hugging Face Trainer under an engine's hooks, resumable, and stopped by a loss that is not finite.

What the Trainer computes is untouched. It keeps the sum of the losses since the last log in `_tr_loss`; its own
checkpoints leave that out, so a log after a resumption would be wrong. Here it is saved and restored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel, Trainer
from transformers.trainer_callback import TrainerCallback

from duckling_train.engines.base import DivergedError, EngineState, Hook, Job, LogLine
from duckling_train.engines.reference import state
from duckling_train.engines.reference.callbacks import TrainerView
from duckling_train.engines.reference.state import values_of
from duckling_train.precision import RECIPES


class JobView(TrainerView):
    """A step of a DucklingTrainer's run."""

    def __init__(self, trainer: DucklingTrainer, hooks: Sequence[Hook]) -> None:
        super().__init__(frozenset[str]().union(*(hook.needs for hook in hooks)))
        self.trainer = trainer

    @property
    def model(self) -> GPT2LMHeadModel:
        """The model, not its wrapper for several processes."""
        return self.trainer.job.model

    @property
    def loss(self) -> float | None:
        """The loss of this process's part of the batch."""
        return self.trainer.losses[-1].item() if self.trainer.losses else None

    def state(self) -> EngineState:
        """Return the Trainer's state. Raises DivergedError where a weight is not finite."""
        return self.trainer.engine_state()


class DucklingTrainer(Trainer):
    """A Trainer that calls hooks, resumes bitwise, and raises DivergedError at the first loss that is not finite."""

    def __init__(self, *, job: Job, hooks: Sequence[Hook], **arguments: Any) -> None:
        super().__init__(model=job.model, train_dataset=job.rows, **arguments)
        self.job = job
        self.hooks = hooks
        self.losses: list[torch.Tensor] = []
        """The losses of the steps since the last log: read where a hook, or a mean that is not finite, asks for it."""
        self.view = JobView(self, hooks)
        self.add_callback(_Events(self))

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """Return the step's loss, and remember it without waiting for an accelerator."""
        loss = super().training_step(*arguments, **keywords)
        self.losses.append(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, unless the loss or the gradient's norm is not finite: then raise DivergedError with the step."""
        loss = logs.get("loss", logs.get("train_loss", 0.0))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {self._first_bad_step()}")
        norm = logs.get("grad_norm", 0.0)
        if not math.isfinite(norm):
            raise DivergedError(f"the gradient's norm is {norm} at step {self.state.global_step}")
        super().log(logs, start_time)

    def _first_bad_step(self) -> int:
        first = self.state.global_step - len(self.losses) + 1
        bad = (first + index for index, loss in enumerate(self.losses) if not math.isfinite(loss.item()))
        return next(bad, self.state.global_step)

    def _maybe_log_save_evaluate(self, *arguments: Any, **keywords: Any) -> None:
        """Log where it is due, then let the hooks see the step. (Called once more at the end of an epoch.)"""
        super()._maybe_log_save_evaluate(*arguments, **keywords)
        if self.state.global_step > self.view.step:
            self.view.step = self.state.global_step
            for hook in self.hooks:
                hook.step(self.view)
            if self._globalstep_last_logged == self.state.global_step:
                self.losses.clear()

    def engine_state(self) -> EngineState:
        """Return what a checkpoint keeps. Raises DivergedError where a weight is not finite."""
        optimizer, schedule = self._state_of_training()
        if not all(bool(parameter.isfinite().all()) for parameter in self.job.model.parameters()):
            raise DivergedError(f"the weights are no longer finite at step {self._first_bad_step()}")
        return state.engine_state(
            self.job.model, optimizer, schedule.state_dict(), self.state,
            running_loss=self._tr_loss.item(), last_logged=self._globalstep_last_logged,
        )  # fmt: skip

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state.load_weights(self.job.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        start = self.job.start
        if start is None:
            return
        optimizer, schedule = self._state_of_training()
        own = optimizer.state_dict()["param_groups"]
        rates = state.learning_rates(start, len(own))
        dtype = RECIPES[self.job.config.precision].state
        moments = state.load_moments(self.job.model, optimizer, dtype, start.path)
        groups = [{**group, "lr": rate} for group, rate in zip(own, rates, strict=True)]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        done = {"last_epoch": start.step, "_step_count": start.step + 1, "_last_lr": rates}
        schedule.load_state_dict(schedule.state_dict() | done)

    def _state_of_training(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """Return the optimizer and the schedule, which the Trainer makes before the first step."""
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        return self.optimizer, self.lr_scheduler

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing random is left to draw: see `state.py`."""


class _Events(TrainerCallback):
    """Passes the Trainer's events on to the hooks."""

    def __init__(self, trainer: DucklingTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the losses summed since the last log: the Trainer has just set them to 0."""
        trainer = self.trainer
        if trainer.job.start is not None:
            values = values_of(trainer.job.start)
            trainer._tr_loss.fill_(values.running_loss)
            trainer._globalstep_last_logged = values.last_logged
        trainer.view.begin(state.global_step, trainer.job.model, trainer.optimizer)
        for hook in trainer.hooks:
            hook.begin(trainer.view)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the gradient, where a hook needs it."""
        self.trainer.view.keep_gradient()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Pass on a logged loss."""
        if logs and "loss" in logs:
            line = LogLine(state.global_step, logs["loss"], logs["learning_rate"], logs.get("grad_norm"))
            for hook in self.trainer.hooks:
                hook.log(line)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass it on. The Trainer has read the last loss by now, so an accelerator has finished."""
        self.trainer.view.end()
        for hook in self.trainer.hooks:
            hook.end(self.trainer.view)
