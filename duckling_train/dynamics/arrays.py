"""What the measurements share: what is not finite is refused, sums are float64, and what is not defined is NaN.

The values are float32 (or bf16), so their squares and the products of two norms fit in float64 with room to spare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
OWN_THREAD = 1 << 18
"""Multiplications of a matrix product that OpenBLAS does in the thread that asks. Larger ones take threads of its own,
which spin for some 25 ms after each: beside threads that measure, that costs 10 times the product."""
EXPONENT = 0x7F80
"""The bits of the exponent of a bf16 value; all of them are set where it is infinite or not a number."""


def refuse_non_finite(what: str, values: npt.NDArray[Any]) -> None:
    """Raise InputError where `values`, called `what` in the message, hold infinity or NaN."""
    # The smallest and the largest are finite only where all are: both are NaN where there is one.
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise InputError(f"{what}: a number that is not finite; expected finite ones: has the run diverged?")


def refuse_non_finite_bits(bits: npt.NDArray[np.uint16]) -> None:
    """Raise InputError where bf16 bits are those of infinity or NaN."""
    if bits.size and int((bits & np.uint16(EXPONENT)).max()) == EXPONENT:
        raise InputError("weights: a number that is not finite in bf16; expected finite ones, below 3.39e38.")


def double(what: str, values: npt.NDArray[Any]) -> Floats:
    """Return `values` as float64, without a copy where they are. Raises InputError where one is not finite."""
    refuse_non_finite(what, values)
    return np.asarray(values, np.float64)


def dot(a: Floats, b: Floats) -> Floats:
    """Return the products of vectors along the last axis, added in one order whatever the number of threads.

    Raises InputError where a factor is not finite: the product is not, either. So do `norm` and `cosine`.
    """
    products = np.asarray(np.einsum("...j,...j->...", a, b))
    refuse_non_finite("rows", products)
    return products


def norm(vectors: Floats) -> Floats:
    """Return the Euclidean norm of each vector (the last axis)."""
    return np.asarray(np.sqrt(dot(vectors, vectors)))


def gram(rows: Floats) -> Floats:
    """Return Σ W_i W_iᵀ over the rows, float64[width, width], in parts that take no threads but the caller's."""
    refuse_non_finite("rows", rows)
    width = rows.shape[1]
    at_once = max(1, OWN_THREAD // width**2) if width**2 <= OWN_THREAD else len(rows)
    total, part = np.zeros((width, width)), np.empty((width, width))
    other = rows.copy()  # a product of one array with itself takes another, slower way
    for first in range(0, len(rows), at_once):
        np.matmul(rows[first : first + at_once].T, other[first : first + at_once], out=part)
        total += part
    return total


def product(rows: Floats, matrix: Floats) -> Floats:
    """Return rows @ matrix, float64[rows, columns], in parts that take no threads but the caller's."""
    at_once = max(1, OWN_THREAD // matrix.size)
    found = np.empty((len(rows), matrix.shape[1]))
    for first in range(0, len(rows), at_once):
        np.matmul(rows[first : first + at_once], matrix, out=found[first : first + at_once])
    return found


def ratio(above: Floats | float, below: Floats | float) -> Floats:
    """Return above / below, NaN where `below` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(below) == 0, np.nan, np.divide(above, below))


def cosine(a: Floats, b: Floats) -> Floats:
    """Return the cosine of the angle between vectors (the last axis), NaN where one of them is 0."""
    return np.clip(ratio(dot(a, b), norm(a) * norm(b)), -1.0, 1.0)


def mean(values: Floats) -> float:
    """Return the mean of the values that are numbers, NaN where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
