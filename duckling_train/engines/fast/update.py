"""The update of one model's row of weights: `optimizers.py` has the rules.

AdamW whose moments have the weights' dtype, which is the default, works on the whole row at once, in pieces that stay
in a processor's cache between its nine operations: they are torch's own of its AdamW, so every bit is. On a GPU it is
torch's fused kernel in float32. The other rules are those of `optimizers.py` on the model's parameters.
"""

from __future__ import annotations

import functools
import math
from typing import Protocol

import torch
from torch.optim.adamw import adamw

from duckling_train.config import TrainConfig
from duckling_train.engines.fast.parameters import Parameters, decays
from duckling_train.optimizers import MOMENTS, STATE, STEP, optimizer_class
from duckling_train.precision import RECIPES

PIECE = 1 << 17
"""Weights of a piece on a CPU: 0.5 MB of each of five tensors in float32."""
Tensors = dict[str, torch.Tensor]


class Update(Protocol):
    """An optimizer of one model of `Parameters`."""

    def step(self, rate: float) -> None:
        """Apply the model's gradients at this learning rate."""

    def state(self, name: str) -> Tensors:
        """Return what it keeps of the parameter `name`: `step`, and the moments that its rule has; its own tensors."""

    def tensors(self) -> Tensors:
        """Return its whole state, as a checkpoint has it: `step/NAME`, `exp_avg/NAME` and so on; its own tensors."""

    def load(self, tensors: Tensors) -> None:
        """Copy a whole state."""


def make_update(parameters: Parameters, number: int, config: TrainConfig, *, fused: bool = False) -> Update:
    """Return the update of a job's settings for the model of this number; with `fused` a FusedAdamW, if it has one.

    In pure bf16 it has none: the fused kernel would round a weight once, not after each operation.
    """
    recipe = RECIPES[config.precision]
    if config.optimizer == "adamw" and recipe.state == recipe.weights:
        fused = fused and recipe.weights == torch.float32
        return (FusedAdamW if fused else FlatAdamW)(parameters, number, config)
    return ByParameter(parameters, number, config)


class FlatAdamW:
    """torch's AdamW on the whole row."""

    def __init__(self, parameters: Parameters, number: int, config: TrainConfig) -> None:
        self.parameters, self.number, self.config = parameters, number, config
        self.steps = 0
        self._moments = torch.zeros_like(parameters.weights[number].expand(2, -1))
        row = parameters.weights.shape[1]
        piece = min(PIECE, row) if parameters.weights.device.type == "cpu" else row
        ends = (0, parameters.decayed), (parameters.decayed, row)
        self._pieces = [
            (slice(first, min(first + piece, end)), config.weight_decay if end == parameters.decayed else 0.0)
            for start, end in ends
            for first in range(start, end, piece)
        ]

    @functools.cached_property
    def _room(self) -> torch.Tensor:
        return self.parameters.weights.new_empty(max(piece.stop - piece.start for piece, _ in self._pieces))

    def step(self, rate: float) -> None:
        """Take a step."""
        self.steps += 1
        beta1, beta2 = self.config.betas
        corrected1, corrected2 = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        row, gradient = self.parameters.weights[self.number], self.parameters.gradients[self.number]
        for piece, decay in self._pieces:
            w, g, m, v = row[piece], gradient[piece], self._moments[0, piece], self._moments[1, piece]
            if decay:
                w.mul_(1 - rate * decay)
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            root = torch.sqrt(v, out=self._room[: len(v)]).div_(corrected2).add_(self.config.adam_epsilon)
            w.addcdiv_(m, root, value=-rate / corrected1)

    def state(self, name: str) -> Tensors:
        """Return the number of steps and views of the moments."""
        moments = self.parameters.of(self._moments[0:1], 0)[name], self.parameters.of(self._moments[1:2], 0)[name]
        return {STEP: torch.tensor(float(self.steps)), **dict(zip(MOMENTS, moments, strict=True))}

    def tensors(self) -> Tensors:
        """Return the whole state."""
        return _named({name: self.state(name) for name in self.parameters.names})

    def load(self, tensors: Tensors) -> None:
        """Copy a state."""
        for name in self.parameters.names:
            for kind, own in self.state(name).items():
                own.copy_(tensors[f"{kind}/{name}"])
            self.steps = int(tensors[f"{STEP}/{name}"])


class FusedAdamW(FlatAdamW):
    """torch's AdamW in one kernel for those with decay and one for the others, rounded otherwise than `FlatAdamW`.

    The number of steps is kept on the device, and a rate given as a tensor is read there: a CUDA graph can have both.
    """

    def __init__(self, parameters: Parameters, number: int, config: TrainConfig) -> None:
        super().__init__(parameters, number, config)
        self._counts = torch.zeros(len(self._pieces), device=parameters.weights.device)

    def step(self, rate: float | torch.Tensor) -> None:
        """Take a step."""
        beta1, beta2 = self.config.betas
        row, gradient = self.parameters.weights[self.number], self.parameters.gradients[self.number]
        for count, (piece, decay) in zip(self._counts, self._pieces, strict=True):
            adamw(
                [row[piece]], [gradient[piece]], [self._moments[0, piece]], [self._moments[1, piece]], [], [count],
                fused=True, amsgrad=False, maximize=False,
                lr=rate, beta1=beta1, beta2=beta2, weight_decay=decay, eps=self.config.adam_epsilon,
            )  # fmt: skip

    def state(self, name: str) -> Tensors:
        """Return the number of steps, on the device, and views of the moments."""
        return super().state(name) | {STEP: self._counts[0]}

    def load(self, tensors: Tensors) -> None:
        """Copy a state."""
        super().load(tensors)
        self._counts.fill_(self.steps)


class ByParameter:
    """An optimizer of `optimizers.py`, on the model's parameters in the Trainer's order: first those with decay."""

    def __init__(self, parameters: Parameters, number: int, config: TrainConfig) -> None:
        self.config = config
        model = parameters.models[number]
        self._named = dict(model.named_parameters())
        for name, gradient in parameters.of(parameters.gradients, number).items():
            self._named[name].grad = gradient
        groups = [
            {"params": [self._named[name] for name in self._named if decays(name) == decayed], "weight_decay": decay}
            for decayed, decay in ((True, config.weight_decay), (False, 0.0))
        ]
        made = optimizer_class(
            config.precision, config.seed, config.optimizer, model,
            lr=config.learning_rate, betas=config.betas, eps=config.adam_epsilon,
        )  # fmt: skip
        assert made is not None
        kind, arguments = made
        self._optimizer = kind(groups, **arguments)

    def step(self, rate: float) -> None:
        """Take a step."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()

    def state(self, name: str) -> Tensors:
        """Return the optimizer's own; before the first step there is none."""
        kept = self._optimizer.state[self._named[name]]
        return {kind: kept[kind] for kind in STATE[self.config.optimizer] if kind in kept}

    def tensors(self) -> Tensors:
        """Return the whole state."""
        return _named({name: self.state(name) for name in self._named})

    def load(self, tensors: Tensors) -> None:
        """Copy a state."""
        for name, parameter in self._named.items():
            self._optimizer.state[parameter] = {
                kind: tensors[f"{kind}/{name}"].to("cpu" if kind == STEP else parameter.device, copy=True)
                for kind in STATE[self.config.optimizer]
            }


def _named(states: dict[str, Tensors]) -> Tensors:
    return {f"{kind}/{name}": tensor for name, state in states.items() for kind, tensor in state.items()}
