"""In which dtype the step multiplies matrices: the precision's own, or float32 where the processor has no bf16.

A product of two bf16 numbers is exact in float32. Operands that are rounded to bf16 and multiplied in float32, the
result rounded to bf16, are what a bf16 product with float32 sums is. A processor without bf16 arithmetic does that at
float32's speed; torch's own emulation of bf16 is 8 times as slow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from duckling_train.config import TrainConfig
from duckling_train.precision import RECIPES, native_bf16

NATIVE, EMULATED, FLOAT32 = "bf16", "bf16-in-float32", "float32"
"""The names of the three in a run's settings."""


@dataclass(frozen=True)
class Arithmetic:
    """The dtypes of a step's matrix products."""

    name: str
    low: torch.dtype
    """What operands and results are rounded to."""
    multiplied: torch.dtype
    """What they are held in while they are multiplied."""

    def operand(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded, as an operand. The gradient that comes back is rounded, too."""
        return x.to(self.low).to(self.multiplied)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """Round float32 `x` in place, and return it."""
        return x if self.low == x.dtype else x.copy_(x.to(self.low))

    def result(self, x: torch.Tensor) -> torch.Tensor:
        """Return a product rounded."""
        return x.to(self.low)


ARITHMETICS = {
    made.name: made
    for made in (
        Arithmetic(NATIVE, torch.bfloat16, torch.bfloat16),
        Arithmetic(EMULATED, torch.bfloat16, torch.float32),
        Arithmetic(FLOAT32, torch.float32, torch.float32),
    )
}


def choose_arithmetic(config: TrainConfig) -> str:
    """Return the name of the arithmetic of a config, its device resolved, on this machine."""
    recipe = RECIPES[config.precision]
    if not recipe.autocast and recipe.weights == torch.float32:
        return FLOAT32
    return EMULATED if config.device == "cpu" and not native_bf16() else NATIVE
