"""A run as it trains on the fast engine: its losses, hooks and log, what computes it, and what its hooks see."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch

from duckling_train.config import TrainConfig
from duckling_train.engines.base import DivergedError, EngineState, Hook, Job, LogLine, StepView
from duckling_train.engines.fast.arithmetic import ARITHMETICS, EMULATED
from duckling_train.engines.fast.order import Batches, learning_rate
from duckling_train.engines.fast.parameters import Parameters
from duckling_train.engines.fast.step import WTE, Step
from duckling_train.engines.fast.update import Update, make_update
from duckling_train.engines.state import OPTIMIZER, WEIGHTS, refuse_infinite, weights_file
from duckling_train.optimizers import MOMENTS

if TYPE_CHECKING:
    from duckling_train.engines.base import Model


class Run:
    """A job as it trains: its batches, losses, update and hooks."""

    view: FastView
    part: Part
    """What computes it."""
    number: int
    """Its model's in the part."""

    def __init__(self, job: Job, hooks: Sequence[Hook]) -> None:
        self.job, self.hooks = job, hooks
        self.batches = Batches(job.config, job.rows)
        self.update: Update | None = None
        self.running, self.last_logged = 0.0, 0
        """The sum of the losses since the last log, a float32 as the Trainer's, and that log's step."""
        self.losses: list[float] = []
        """The losses of the steps since the last log, of this process."""
        self.norm = 0.0
        self.ended: DivergedError | None = None

    def begin(self) -> None:
        """Let the hooks begin."""
        for hook in self.hooks:
            hook.begin(self.view)

    def end(self) -> None:
        """Let the hooks end; waits for an accelerator."""
        self.part.read()
        for hook in self.hooks:
            hook.end(self.view)

    def needs_at(self, step: int) -> frozenset[str]:
        """Return what the hooks need of a step."""
        return frozenset[str]().union(*(hook.needs_at(step) for hook in self.hooks))

    def took(self, loss: float, norm: float) -> None:
        """Keep a step's loss and norm."""
        self.running = float(np.float32(self.running) + np.float32(loss))
        self.losses.append(loss)
        self.norm = norm

    def show(self, step: int) -> None:
        """Let the hooks see the step. Raises DivergedError where a logged number is not finite, and what they raise."""
        due = step == 1 or step % self.job.config.logging_steps == 0
        if due:
            self._log(step)
        for hook in self.hooks:
            hook.step(self.view)
        if due:
            self.losses.clear()

    def _log(self, step: int) -> None:
        self.part.read()
        loss = self.running / (step - self.last_logged)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {self.bad_step()}")
        if not math.isfinite(self.norm):
            raise DivergedError(f"the gradient's norm is {self.norm} at step {step}")
        self.running, self.last_logged = 0.0, step
        for hook in self.hooks:
            hook.log(LogLine(step, loss, learning_rate(self.job.config, step), self.norm))

    def bad_step(self) -> int:
        """Return the first step since the last log whose loss is not finite, else the last."""
        last = self.view.step
        first = last - len(self.losses) + 1
        return next((first + n for n, loss in enumerate(self.losses) if not math.isfinite(loss)), last)


class Part:
    """Runs whose models are computed in one batch."""

    fused = False
    """Whether AdamW is torch's fused kernel, where it can be."""

    def __init__(self, config: TrainConfig, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.parameters = Parameters([run.job.model for run in runs], torch.device(config.device))
        self.computation = Step(self.parameters, config, ARITHMETICS[config.arithmetic])
        for number, run in enumerate(runs):
            run.part, run.number = self, number
            update = make_update(self.parameters, number, run.job.config, fused=self.fused)
            if run.update is not None:
                update.load(run.update.tensors())
            run.update = update

    def take(self, step: int) -> None:
        """Take one step of every run."""
        drawn = [run.batches(step) for run in self.runs]
        device = self.parameters.weights.device
        ids = torch.stack([ids for ids, _ in drawn]).to(device)
        masks = [mask for _, mask in drawn if mask is not None]
        mask, needed = torch.cat(masks).to(device) if masks else None, [run.needs_at(step) for run in self.runs]
        losses = self.computation.gradients(ids, mask, needed)
        norms = self.computation.clip([run.job.config.max_grad_norm for run in self.runs])
        for run, loss, norm in zip(self.runs, losses.tolist(), norms.tolist(), strict=True):
            assert run.update is not None
            run.update.step(learning_rate(run.job.config, step))
            run.took(loss, norm)
            run.view.step = step

    def read(self) -> None:
        """Give the runs the losses and norms of all steps taken: here they have them already."""

    def release(self) -> None:
        """Give the models' parameters memory of their own again."""
        self.parameters.release()


class FastView(StepView):
    """A step of one of the runs."""

    def __init__(self, run: Run, start: int) -> None:
        self.run, self.start, self.step = run, start, start

    @property
    def model(self) -> Model:
        """The job's own model: its parameters are the engine's."""
        return self.run.job.model

    @property
    def loss(self) -> float | None:
        """The batch's loss."""
        self.run.part.read()
        return self.run.losses[-1] if self.run.losses else None

    @property
    def gradient(self) -> torch.Tensor | None:
        """The gradient of W, after clipping."""
        if self.step == self.start:
            return None
        parameters = self.run.part.parameters
        return parameters.of(parameters.gradients, self.run.number)[WTE]

    @property
    def gradient_parts(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The gradient's two parts, made of what was added to the softmax's."""
        return self.run.part.computation.gradient_parts(self.run.number)

    @property
    def probabilities(self) -> torch.Tensor | None:
        """The mean probabilities."""
        return self.run.part.computation.probabilities.get(self.run.number)

    @property
    def moments(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """AdamW's moments of W."""
        assert self.run.update is not None
        kept = self.run.update.state(WTE) if self.step else {}
        return (kept[MOMENTS[0]], kept[MOMENTS[1]]) if MOMENTS[0] in kept else None

    @property
    def hidden(self) -> torch.Tensor | None:
        """The batch's final hidden states."""
        hidden = self.run.part.computation.hidden
        return hidden[self.run.number] if hidden is not None else None

    @property
    def logits_of(self) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None:
        """By the engine's arithmetic where torch would emulate bf16, slowly."""
        computation, number = self.run.part.computation, self.run.number
        return functools.partial(computation.logits, number) if computation.arithmetic.name == EMULATED else None

    def state(self) -> EngineState:
        """Return the weights, the optimizer's state, and what is summed since the last log."""
        run, model = self.run, self.run.job.model
        run.part.read()
        refuse_infinite(model, run.bad_step)
        assert run.update is not None
        tensors = {name: tensor.cpu().clone() for name, tensor in run.update.tensors().items()}
        files = {WEIGHTS: weights_file(model), OPTIMIZER: safetensors.torch.save(tensors)}
        return EngineState(files, {"running_loss": run.running, "last_logged": run.last_logged})
