"""What a hook sees of a run on the fast engine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import safetensors.torch
import torch

from duckling_train.engines.base import EngineState, StepView
from duckling_train.engines.fast.arithmetic import EMULATED
from duckling_train.engines.fast.step import WTE
from duckling_train.engines.state import OPTIMIZER, WEIGHTS, refuse_infinite, weights_file
from duckling_train.optimizers import MOMENTS

if TYPE_CHECKING:
    from duckling_train.engines.base import Model
    from duckling_train.engines.fast.training import Run


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
        return self.run.losses[-1] if self.run.losses else None

    @property
    def gradient(self) -> torch.Tensor | None:
        """The gradient of W, after clipping."""
        if self.step == self.start:
            return None
        parameters = self.run.part.parameters
        return parameters.of(parameters.gradients, self.run.number)[WTE]

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
        refuse_infinite(model, run.bad_step)
        assert run.update is not None
        tensors = {name: tensor.cpu().clone() for name, tensor in run.update.tensors().items()}
        files = {WEIGHTS: weights_file(model), OPTIMIZER: safetensors.torch.save(tensors)}
        return EngineState(files, {"running_loss": run.running, "last_logged": run.last_logged})
