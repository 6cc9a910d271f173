"""The lattice of bf16: the value nearest to a weight, its position among all of them, and the distance to the next.

A bf16 value is the upper half of a float32: 1 bit of sign, 8 of exponent, 7 of mantissa. Counted from zero up, the
values of one sign are the integers 0, 1, 2, …, so that neighbours differ by 1 also where the exponent changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_train.dynamics.arrays import EXPONENT, refuse_non_finite, refuse_non_finite_bits
from duckling_train.recording import codec

MAGNITUDE = 0x7FFF
"""The bits of exponent and mantissa of a bf16 value."""


def bf16_bits(w: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return the bits of the bf16 value nearest to each float32, ties to even, uint16 of the same shape.

    It is the rounding of torch's `w.to(torch.bfloat16)`. A float32 that is a bf16 value keeps its upper half. Raises
    InputError for a number that is not finite, or is not after the rounding (above 3.39e38).
    """
    if w.dtype != np.float32:
        raise InputError(f"weights are {w.dtype}, expected float32; convert them without rounding twice.")
    refuse_non_finite("weights", w)
    bits = codec.bf16_bits(w)
    refuse_non_finite_bits(bits)
    return bits


def lattice(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
    """Return the lattice coordinate k of bf16 bits b, int32: b where the sign is 0, −(b & 0x7FFF) where it is 1.

    Both zeros are 0, and k rises with the value. Raises InputError for bits of infinity or NaN.
    """
    refuse_non_finite_bits(bits)
    magnitude = (bits & np.uint16(MAGNITUDE)).astype(np.int32)
    sign = bits.view(np.int16).astype(np.int32) >> 15  # 0 or −1: all bits
    magnitude ^= sign
    magnitude -= sign
    return magnitude


def ulp(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Return the unit in the last place of bf16 values, float64: 2^(max(E, 1) − 134), E the 8 bits of the exponent.

    Raises InputError for bits of infinity or NaN.
    """
    refuse_non_finite_bits(bits)
    exponent = ((bits & np.uint16(EXPONENT)) >> np.uint16(7)).astype(np.int32)
    return np.asarray(np.ldexp(1.0, np.maximum(exponent, 1) - 134))
