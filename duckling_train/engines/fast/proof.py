"""At the start of a run the engine proves itself: a step's loss and gradients against the plain model's, by autograd.

The plain model, `gpt2.py`, is equal to transformers' to the last bit. A library that is wrong on a processor where the
engine was never tried is found here, before a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duckling_data.base.errors import InputError
from duckling_train.config import TrainConfig, given
from duckling_train.engines.fast.arithmetic import ARITHMETICS, EMULATED
from duckling_train.engines.fast.parameters import Parameters
from duckling_train.engines.fast.step import Step
from duckling_train.gpt2 import Gpt2
from duckling_train.precision import RECIPES, uses_autocast

if TYPE_CHECKING:
    from duckling_train.engines.base import Model
    from duckling_train.engines.fast.graph import Graphs

TOKENS = {EMULATED: 128}
"""How many tokens of the first batch are compared where torch emulates bf16, which takes it seconds for a batch."""
MOST = 2048
"""Elsewhere: as many as keep the start of a run short."""
LOSS, GRADIENT = 1e-5, 1e-4
"""The largest relative differences in float32: of the loss, and of the gradient, by its norm."""
LOSS_BF16, GRADIENT_BF16 = 1e-3, 0.03
"""In bf16, where a rounding is 0.4 % of a number."""


def prove(config: TrainConfig, ids: torch.Tensor, model: Model | None = None, graphs: Graphs | None = None) -> None:
    """Raise InputError where a step on int64[rows, context] ids differs from `model`'s by autograd.

    None is the plain model, fresh. A user's own may have been changed in a way that the engine does not follow. With
    `graphs`, what is compared is the replay of a graph.
    """
    context = min(config.n_positions, TOKENS.get(config.arithmetic, MOST))
    rows = max(1, TOKENS.get(config.arithmetic, MOST) // context)
    ids = ids[:rows, :context].to(config.device)
    if model is None:
        torch.manual_seed(config.seed)
        model = Gpt2(config)
    torch.nn.Module.to(model, config.device)
    loss, expected = _by_autograd(model, ids, config)
    parameters = Parameters([model], torch.device(config.device))
    step = Step(parameters, config, ARITHMETICS[config.arithmetic])
    losses: list[torch.Tensor] = []

    def work() -> None:
        losses.append(step.gradients(ids[None]))

    do = work
    if graphs is not None:
        graphs.warm(work)
        do = graphs.capture(work)
        parameters.gradients.zero_()
    do()
    found = float(losses[-1])
    gradients = {name: each.clone() for name, each in parameters.of(parameters.gradients, 0).items()}
    parameters.release()
    difference = sum(float((gradients[name].float() - expected[name].float()).square().sum()) for name in expected)
    size = sum(float(gradient.float().square().sum()) for gradient in expected.values())
    exact = RECIPES[config.precision].weights == torch.float32 and not uses_autocast(config.precision)
    of_loss, of_gradient = abs(found / loss - 1), (difference / size) ** 0.5
    if not (of_loss <= (LOSS if exact else LOSS_BF16) and of_gradient <= (GRADIENT if exact else GRADIENT_BF16)):
        raise InputError(
            f"the fast engine does not compute this model here: its first loss differs by {of_loss:.1g} and its "
            f"gradient by {of_gradient:.1g} of theirs: give {given('engine', 'reference')}"
        )


def _by_autograd(model: Model, ids: torch.Tensor, config: TrainConfig) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and the gradients, by name."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=uses_autocast(config.precision)):
        logits = model(ids).logits[:, :-1].flatten(0, 1).float()
    loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum") / ids.numel()
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()))
    return float(loss.detach()), dict(zip(named, gradients, strict=True))
