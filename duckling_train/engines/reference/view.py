"""What the hooks of any Hugging Face Trainer's run see of a step, watched by hooks of torch on the model's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GPT2LMHeadModel

from duckling_data.base.errors import InputError
from duckling_train.engines.base import GRADIENT, GRADIENT_PARTS, HIDDEN, PROBABILITIES, EngineState, Hook, StepView
from duckling_train.optimizers import MOMENTS
from duckling_train.processes import process_count

POSITIONS = 128
"""Whose probabilities are in memory at once."""


class TrainerView(StepView):
    """A step of any Hugging Face Trainer's run, as its callbacks see it."""

    gradient: torch.Tensor | None = None
    hidden: torch.Tensor | None = None

    _of_softmax: torch.Tensor | None = None

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = hooks
        self._needs: frozenset[str] = frozenset()
        """What they need of the step that is under way."""
        self._inputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        """The ids that the embedding was given in the step, and the gradients by what it returned."""
        self._norm: torch.Tensor | None = None
        """The norm of W's gradient before clipping."""
        self._total: torch.Tensor | None = None
        """The step's probabilities, summed over `_positions` positions."""
        self._positions = 0
        self._model: GPT2LMHeadModel | None = None
        self._optimizer: Any = None
        self._handles: list[Any] = []

    def begin(self, step: int, model: GPT2LMHeadModel, optimizer: Any) -> None:
        """Show a run from this step on."""
        self.step, self._model, self._optimizer = step, model, optimizer
        needs, body = frozenset[str]().union(*(hook.needs for hook in self._hooks)), model.transformer
        if HIDDEN in needs:
            self._handles.append(body.ln_f.register_forward_hook(self._keep_hidden))
        if PROBABILITIES in needs:
            self._handles.append(model.lm_head.register_forward_hook(self._add_probabilities))
        if GRADIENT_PARTS in needs:
            self._handles.append(body.wte.register_forward_hook(self._watch_input))
            weight: Any = body.wte.weight
            self._handles.append(weight.register_post_accumulate_grad_hook(self._keep_norm))

    def begin_step(self) -> None:
        """Forget the step before."""
        self._needs = frozenset[str]().union(*(hook.needs_at(self.step + 1) for hook in self._hooks))
        self.gradient = self.hidden = self._norm = self._total = None
        self._inputs, self._positions = [], 0

    def keep_gradient(self) -> None:
        """Keep the gradients that the optimizer is about to apply: the Trainer drops them afterwards."""
        if self._needs & {GRADIENT, GRADIENT_PARTS}:
            self.gradient = self.model.transformer.wte.weight.grad
            self._of_softmax = self.model.lm_head.weight.grad

    def end(self) -> None:
        """Take the hooks off the model's layers."""
        for handle in self._handles:
            handle.remove()

    def _keep_hidden(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if torch.is_grad_enabled() and HIDDEN in self._needs:  # a training step's, not an evaluation's
            self.hidden = output.detach()

    def _add_probabilities(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if not (torch.is_grad_enabled() and PROBABILITIES in self._needs):
            return
        if self._total is None:
            self._total = torch.zeros(output.shape[-1], device=output.device)
        for row in output.detach()[:, :-1]:
            self._positions += len(row)
            for logits in row.split(POSITIONS):
                self._total += torch.softmax(logits.float(), -1).sum(0)

    def _watch_input(self, _module: Any, inputs: tuple[torch.Tensor], output: Any) -> None:
        if torch.is_grad_enabled() and GRADIENT_PARTS in self._needs:
            output.register_hook(lambda gradient: self._inputs.append((inputs[0], gradient)))

    def _keep_norm(self, weight: torch.Tensor) -> None:
        if GRADIENT_PARTS in self._needs and weight.grad is not None:
            self._norm = torch.linalg.vector_norm(weight.grad, dtype=torch.float32)

    @property
    def gradient_parts(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The gradients at the embedding's output summed by token, and what is left of W's gradient."""
        total, norm = self.gradient, self._norm
        if total is None or norm is None:
            return None
        if self.model.lm_head.weight is not self.model.transformer.wte.weight:
            assert self._of_softmax is not None
            return total, self._of_softmax
        if process_count() > 1:
            return None
        of_input = torch.zeros_like(total, dtype=torch.float32)
        for ids, gradient in self._inputs:
            of_input.index_add_(0, ids.flatten(), gradient.flatten(0, -2).float())
        if norm > 0:  # clipping shortened both parts as it did the sum
            of_input *= torch.linalg.vector_norm(total, dtype=torch.float32) / norm
        return of_input.to(total.dtype), (total.float() - of_input).to(total.dtype)

    @property
    def probabilities(self) -> torch.Tensor | None:
        """The mean probabilities."""
        return self._total / self._positions if self._total is not None else None

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
