"""What a run computes and keeps in which dtype: the five values of `--precision`.

| precision | weights and gradients | AdamW's moments | forward | a new weight is |
|---|---|---|---|---|
| `bf16-mixed` | float32 | float32 | bf16 by autocast | kept |
| `fp32` | float32 | float32 | float32 | kept |
| `bf16-pure` | bf16 | bf16 | bf16 | rounded to nearest even, as is every step of the update |
| `bf16-weights` | bf16 | float32 | bf16 | rounded once, to nearest even |
| `bf16-stochastic` | bf16 | float32 | bf16 | rounded once, stochastically |

`bf16-mixed` is the seed's. Two effects in the others slow training, and the five tell them apart:

- The second moment in bf16 cannot decay: neighbouring values differ by 0.4 to 0.8 %, so 0.999 times one rounds back to
  it. `bf16-pure`, which is `model.to(torch.bfloat16)` under torch's AdamW, has it and is kept for study.
- A weight rounded to nearest does not move while its update is less than half the distance to its neighbour. Between
  2**-6 and 2**-5, where many initial weights are (their standard deviation is 0.02), that half is 6.1e-5, and an update
  seldom reaches the learning rate, 1e-4 at most. `bf16-pure` and `bf16-weights` have it; on average over the weights,
  stochastic rounding loses nothing.

The loss is computed in float32 from the logits in all five, and the norm for clipping in the gradients' dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from duckling_train.optimizer import Float32StateAdamW


@dataclass(frozen=True)
class Recipe:
    """What a precision holds in which dtype."""

    weights: torch.dtype
    """Of the weights and gradients."""
    state: torch.dtype
    """Of AdamW's two moments."""
    autocast: bool
    """Whether the forward pass runs under bf16 autocast."""
    rounding: str
    """How a new weight comes to its dtype: kept, nearest, or stochastic."""


RECIPES = {
    "bf16-mixed": Recipe(torch.float32, torch.float32, autocast=True, rounding="kept"),
    "fp32": Recipe(torch.float32, torch.float32, autocast=False, rounding="kept"),
    "bf16-pure": Recipe(torch.bfloat16, torch.bfloat16, autocast=False, rounding="nearest"),
    "bf16-weights": Recipe(torch.bfloat16, torch.float32, autocast=False, rounding="nearest"),
    "bf16-stochastic": Recipe(torch.bfloat16, torch.float32, autocast=False, rounding="stochastic"),
}
"""One for each of `config.PRECISIONS`."""


def uses_autocast(precision: str) -> bool:
    """Whether the forward pass runs under bf16 autocast (the Trainer's `bf16=True`)."""
    return RECIPES[precision].autocast


def native_bf16() -> bool:
    """Return whether this machine's processor (no GPU) computes in bf16 itself.

    Most laptops and desktops do not: torch then emulates bf16, and a training step takes 8 times as long as in float32.
    """
    if torch.backends.cpu.get_cpu_capability() in ("NO AVX", "AVX2"):
        return False
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def optimizer_class(
    precision: str, seed: int, **arguments: Any
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """Return the optimizer's class and its keywords: `arguments` and its own; None where torch's AdamW does.

    `seed` is that of stochastic rounding.
    """
    recipe = RECIPES[precision]
    if recipe.state == recipe.weights:  # as torch has it
        return None
    return Float32StateAdamW, {**arguments, "rounding_seed": seed if recipe.rounding == "stochastic" else None}
