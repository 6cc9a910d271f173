"""The update of the weights: the three values of `--optimizer`, in any precision.

g is the gradient after clipping, λ the weight decay (0 for biases and LayerNorm), η the scheduled learning rate, and t
the number of the step, from 1:

- `adamw`: m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← (1 − ηλ)w − η m̂ / (√v̂ + ε), where m̂ = m / (1 − β₁ᵗ) and
  v̂ = v / (1 − β₂ᵗ), all of them for each weight by itself (Loshchilov and Hutter, 2019). It is torch's own.
- `coupled-adam`: the same, but for a matrix whose rows are the vocabulary v̂ is replaced by its mean over the rows:
  for row i and column j, v̂ⱼ = (1/V) Σᵢ v̂ᵢⱼ, the same for all V rows, live and dead (Stollenwerk and Stollenwerk,
  arXiv 2502.08441). Gradients that sum to 0 over the rows then give updates that do, but for weight decay. The state
  keeps each row's own v: the mean of the running means is the running mean of the mean. These matrices are the
  embedding W, tied or not, and an untied softmax matrix; the positions' embedding is not among them.
- `sgd`: w ← w − η(g + λw), without momentum.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from duckling_train.precision import RECIPES, random_halves, round_stochastically

STEP = "step"
"""The name of the count of a weight's updates in an optimizer's state, a float32."""
MOMENTS = ("exp_avg", "exp_avg_sq")
"""The names of the first and second moment in torch's AdamW state."""
OF_THE_VOCABULARY = ("transformer.wte.weight", "lm_head.weight")
"""The names of the matrices whose rows are the vocabulary; the latter is the first one itself where they are tied."""
STATE = {"adamw": (STEP, *MOMENTS), "coupled-adam": (STEP, *MOMENTS), "sgd": (STEP,)}
"""What each optimizer keeps for each weight."""


def optimizer_class(
    precision: str, seed: int, optimizer: str = "adamw", model: torch.nn.Module | None = None, **arguments: Any
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """Return an optimizer's class and keywords, `arguments` among them; None is torch's AdamW.

    `seed` is that of its stochastic rounding. `model`, whose matrices `coupled-adam` couples, is needed for it alone.
    Of `arguments` (`lr`, `betas`, `eps`), SGD takes `lr`.
    """
    recipe = RECIPES[precision]
    own = {"dtype": recipe.state, "rounding_seed": seed if recipe.rounding == "stochastic" else None}
    if optimizer == "sgd":
        return OwnSGD, {name: value for name, value in arguments.items() if name == "lr"} | own
    if optimizer == "coupled-adam":
        assert model is not None
        coupled = [parameter for name, parameter in model.named_parameters() if name in OF_THE_VOCABULARY]
        return CoupledAdam, {**arguments, **own, "coupled": coupled}
    return None if recipe.state == recipe.weights else (OwnAdamW, arguments | own)


class OwnStep(torch.optim.Optimizer, abc.ABC):
    """An optimizer that computes in one dtype and rounds each new weight once to the weight's own.

    `dtype` is that of its state and arithmetic. `rounding_seed` None rounds bf16 weights to nearest even, a number
    stochastically. The other arguments are those of torch's optimizer of the same rule.
    """

    state_names: tuple[str, ...]
    """What it keeps of each weight."""

    def __init__(
        self, params: Iterable[Any], *, dtype: torch.dtype = torch.float32, rounding_seed: int | None = None,
        **arguments: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, foreach=False, **arguments)  # type: ignore[call-arg]  # of the rule's class
        self.dtype = dtype
        self.rounding_seed = rounding_seed

    @abc.abstractmethod
    def move(self, weight: torch.Tensor, gradient: torch.Tensor, parameter: Any, group: dict[str, Any]) -> None:
        """Update `weight`, the parameter's in `dtype`, and the state in place: one step of the rule."""

    def step(self, closure: Any = None) -> Any:
        """Update every weight that has a gradient. Returns the closure's loss, or None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grouped = ((group, parameter) for group in self.param_groups for parameter in group["params"])
        with torch.no_grad():
            for number, (group, parameter) in enumerate(grouped):
                if parameter.grad is not None:
                    self._update(parameter, group, number)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any], number: int) -> None:
        state = self.state[parameter]
        if not state:
            state[STEP] = torch.tensor(0.0)
            for name in self.state_names:
                if name != STEP:
                    zeros = torch.zeros_like(parameter, dtype=self.dtype, memory_format=torch.preserve_format)
                    state[name] = zeros
        assert parameter.grad is not None
        weight = parameter.detach().to(self.dtype)  # the weight itself, where it is of this dtype already
        self.move(weight, parameter.grad.to(self.dtype), parameter, group)
        if parameter.dtype == torch.bfloat16 and self.rounding_seed is not None:
            halves = random_halves(weight.shape, self.rounding_seed, int(state[STEP]), number)
            weight = round_stochastically(weight, halves.to(weight.device))
        if parameter.dtype != self.dtype:
            parameter.copy_(weight)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy a saved state in its own dtype: torch's own loading casts it to the weights' dtype."""
        saved = copy.deepcopy(state_dict)
        super().load_state_dict(saved)
        for group, saved_group in zip(self.param_groups, saved["param_groups"], strict=True):
            for parameter, number in zip(group["params"], saved_group["params"], strict=True):
                for name in self.state_names if number in saved["state"] else ():
                    if name != STEP:
                        kept = saved["state"][number][name]
                        self.state[parameter][name] = kept.to(device=parameter.device, dtype=self.dtype)


class OwnAdamW(OwnStep, torch.optim.AdamW):
    """AdamW with moments in one dtype for weights of any; on weights of that dtype torch's AdamW to the last bit."""

    state_names = STATE["adamw"]

    def move(self, weight: torch.Tensor, gradient: torch.Tensor, parameter: Any, group: dict[str, Any]) -> None:
        """Take torch's step."""
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        adamw(
            [weight], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state[STEP]],
            foreach=False, amsgrad=False, maximize=False,
            beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
        )  # fmt: skip


class CoupledAdam(OwnAdamW):
    """AdamW in which the weights of `coupled`, matrices whose rows are the vocabulary, share each column's mean v̂."""

    def __init__(self, params: Iterable[Any], *, coupled: Sequence[torch.Tensor], **arguments: Any) -> None:
        super().__init__(params, **arguments)
        self.coupled = frozenset(map(id, coupled))

    def move(self, weight: torch.Tensor, gradient: torch.Tensor, parameter: Any, group: dict[str, Any]) -> None:
        """Take torch's step, or for a matrix that is coupled the same with the mean of v̂ over the rows."""
        if id(parameter) not in self.coupled:
            super().move(weight, gradient, parameter, group)
            return
        state, (beta1, beta2), rate = self.state[parameter], group["betas"], group["lr"]
        first, second = (state[name] for name in MOMENTS)
        state[STEP] += 1
        step = state[STEP].item()
        weight.mul_(1 - rate * group["weight_decay"])
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        mean = second.mean(dim=0, keepdim=True)
        divisor = (mean.sqrt() / math.sqrt(1 - beta2**step)).add_(group["eps"])
        weight.addcdiv_(first, divisor, value=-rate / (1 - beta1**step))


class OwnSGD(OwnStep, torch.optim.SGD):
    """Stochastic gradient descent without momentum; on weights of the dtype torch's SGD to the last bit."""

    state_names = STATE["sgd"]

    def move(self, weight: torch.Tensor, gradient: torch.Tensor, parameter: Any, group: dict[str, Any]) -> None:
        """Take torch's step, and count it."""
        self.state[parameter][STEP] += 1
        sgd(
            [weight], [gradient], [None], foreach=False, momentum=0.0, dampening=0.0, nesterov=False, maximize=False,
            lr=group["lr"], weight_decay=group["weight_decay"],
        )  # fmt: skip
