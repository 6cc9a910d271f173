"""The Hugging Face Trainer under an engine's hooks, resumable, and stopped by a loss that is not finite.

What the Trainer computes is untouched. A checkpoint keeps of it

    weights.safetensors      the model's parameters, in their own dtype, a tied one once
    optimizer.safetensors    a tensor for each parameter and moment: `exp_avg/transformer.wte.weight`
    trainer_state.json       the Trainer's own counters
    values                   the sum of the losses since the last log, which the Trainer's own checkpoints leave out

and no random state: an epoch's order of rows follows from the seed and the epoch, dropout and stochastic rounding from
the seed and the step. Loading is strict: other tensors than the run's own are refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import Trainer

from duckling_data.base.records import decode
from duckling_train.engines.base import DivergedError, EngineState, Hook, Job, LogLine
from duckling_train.engines.reference.callbacks import HookCallback
from duckling_train.engines.reference.view import TrainerView
from duckling_train.engines.state import (
    ADVICE,
    OPTIMIZER,
    WEIGHTS,
    Values,
    load_weights,
    read_optimizer,
    refuse_infinite,
    weights_file,
)
from duckling_train.optimizers import STATE

TRAINER_STATE = "trainer_state.json"  # the name that the Trainer reads


class DucklingTrainer(Trainer):
    """A Trainer that calls hooks, resumes bitwise, and raises DivergedError at the first loss that is not finite."""

    optimizer: Any  # None until the Trainer makes it
    lr_scheduler: Any

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
        refuse_infinite(self.job.model, self._first_bad_step)
        saved, names = self.optimizer.state_dict(), self._names()
        moments = {
            f"{kind}/{names[number]}": tensor.cpu().contiguous()
            for number, kinds in saved["state"].items()
            for kind, tensor in kinds.items()
        }
        # Not the Trainer's history of logs, which the run's own logs hold.
        without = dataclasses.replace(self.state, log_history=[], stateful_callbacks={})  # type: ignore[arg-type]
        files = {
            WEIGHTS: weights_file(self.job.model),
            OPTIMIZER: safetensors.torch.save(moments),
            TRAINER_STATE: (json.dumps(dataclasses.asdict(without), indent=2, sort_keys=True) + "\n").encode(),
        }
        values = {
            "running_loss": self._tr_loss.item(),
            "last_logged": self._globalstep_last_logged,
            "groups": [{key: group[key] for key in group if key != "params"} for group in saved["param_groups"]],
            "schedule": self.lr_scheduler.state_dict(),
        }
        return EngineState(files, values)

    def _names(self) -> list[str]:
        """Return the names of the model's parameters in the optimizer's order."""
        names = {id(parameter): name for name, parameter in self.job.model.named_parameters()}
        return [names[id(parameter)] for group in self.optimizer.param_groups for parameter in group["params"]]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.job.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Set both to the start's step. The learning rates follow from the schedule, bitwise."""
        start = self.job.start
        if start is None:
            return
        names, schedule, kinds = self._names(), self.lr_scheduler, STATE[self.job.config.optimizer]
        tensors = read_optimizer(self.job.config, self.job.model, start.path)
        moments = {number: {kind: tensors[f"{kind}/{name}"] for kind in kinds} for number, name in enumerate(names)}
        rates = [rate * of(start.step) for rate, of in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        own = self.optimizer.state_dict()["param_groups"]
        groups = [{**group, "lr": rate} for group, rate in zip(own, rates, strict=True)]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        done = {"last_epoch": start.step, "_step_count": start.step + 1, "_last_lr": rates}
        schedule.load_state_dict(schedule.state_dict() | done)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing random is left to draw: see above."""


class JobView(TrainerView):
    """A step of a DucklingTrainer's run."""

    def __init__(self, trainer: DucklingTrainer, hooks: Sequence[Hook]) -> None:
        super().__init__(hooks)
        self.trainer = trainer

    @property
    def loss(self) -> float | None:
        """The loss of this process's part of the batch."""
        return self.trainer.losses[-1].item() if self.trainer.losses else None

    def state(self) -> EngineState:
        """Return the Trainer's state. Raises DivergedError where a weight is not finite."""
        return self.trainer.engine_state()


class _Events(HookCallback):
    """Restores what the Trainer resets at the start, and passes on its logs."""

    def __init__(self, trainer: DucklingTrainer) -> None:
        super().__init__(trainer.view, trainer.hooks)
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the losses summed since the last log: the Trainer has just set them to 0."""
        if (start := self.trainer.job.start) is not None:
            values = decode(start.state, Values, str(start.path), ADVICE)
            self.trainer._tr_loss.fill_(values.running_loss)
            self.trainer._globalstep_last_logged = values.last_logged
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Pass on a logged loss."""
        if logs and "loss" in logs:
            line = LogLine(state.global_step, logs["loss"], logs["learning_rate"], logs.get("grad_norm"))
            for hook in self.hooks:
                hook.log(line)
