"""What a run computes and keeps in which dtype: the five values of `--precision`.

| precision | weights and gradients | AdamW's moments | forward | a new weight is |
|---|---|---|---|---|
| `bf16-mixed` | float32 | float32 | bf16 by autocast | kept |
| `fp32` | float32 | float32 | float32 | kept |
| `bf16-pure` | bf16 | bf16 | bf16 | rounded to nearest even, as is every step of the update |
| `bf16-weights` | bf16 | float32 | bf16 | rounded once, to nearest even |
| `bf16-stochastic` | bf16 | float32 | bf16 | rounded once, stochastically |

`bf16-mixed` is the seed's. Two effects in the others slow training (docs/precision.md):

- The second moment in bf16 cannot decay: neighbouring values differ by 0.4 to 0.8 %, so 0.999 times one rounds back to
  it. `bf16-pure`, which is `model.to(torch.bfloat16)` under torch's AdamW, has it and is kept for study.
- A weight rounded to nearest does not move while its update is less than half the distance to its neighbour, as that of
  most initial weights is. `bf16-pure` and `bf16-weights` have it; on average, stochastic rounding loses nothing.

The arithmetic of the latter two is torch's own AdamW on float32 copies of weights and gradients. Stochastic rounding
takes a weight between two neighbouring bf16 values to one of them, its mean being the float32 weight: 16 random bits
are added below the bf16 mantissa, and the low half is set to 0. They come from the generator Philox, keyed by seed and
step: the same on every device and after a resumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


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
UPPER_HALF = ~0xFFFF
"""A mask of the bits of a float32 that are a bf16: sign, exponent, and the upper 7 bits of the mantissa."""


def uses_autocast(precision: str) -> bool:
    """Whether the forward pass runs under bf16 autocast (the Trainer's `bf16=True`)."""
    return RECIPES[precision].autocast


def native_bf16() -> bool:
    """Return whether this machine's processor (no GPU) computes in bf16 itself.

    Most laptops and desktops do not: torch then emulates bf16, and a training step takes 8 times as long as in float32.
    """
    if torch.backends.cpu.get_cpu_capability() in ("NO AVX", "AVX2"):
        return False
    mkldnn: Any = torch.backends.mkldnn  # it has no types
    return bool(mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def random_halves(shape: torch.Size, seed: int, step: int, number: int) -> torch.Tensor:
    """Return int32[shape] on the CPU, uniform on 0 .. 65,535: a function of the arguments alone.

    `seed`, `step` and `number`, the parameter's number in the optimizer, are at least 0 and below 2**64. The generator
    is Philox4x64-10 (Salmon et al., 2011).
    """
    generator = np.random.Philox(key=[seed, step], counter=[0, 0, 0, number])
    words = generator.random_raw((shape.numel() + 3) // 4).astype("<u8", copy=False)
    return torch.from_numpy(words.view("<u2")[: shape.numel()].astype(np.int32)).reshape(shape)


def round_stochastically(values: torch.Tensor, halves: torch.Tensor) -> torch.Tensor:
    """Return float32 `values` rounded to bf16 by `halves`, int32 of the same shape and device, each in 0 .. 65,535.

    Of the two bf16 neighbours of a value, the one away from 0 is taken where the random half is at least 65,536 minus
    the value's low half. A value that bf16 holds stays as it is: both zeros, the infinities and NaN do, too. Beyond the
    largest finite bf16 value the neighbour away from 0 is an infinity.
    """
    bits = values.view(torch.int32)
    rounded = ((bits + halves) & UPPER_HALF).view(torch.float32)
    # A NaN's bits may carry into the sign, or lose their mantissa and become an infinity.
    return torch.where(values.isnan(), values, rounded).to(torch.bfloat16)
