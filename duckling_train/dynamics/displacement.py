"""How far rows move in a step on the lattice of bf16, and what kind of movement that is (measurements 2 and 3).

The lattice displacement of a weight is k_t − k_{t−1}, an exact integer: how many representable values it has passed. It
is Δ / ULP wherever sign and exponent stay, and unlike Δ / ULP it does not blow up near zero.

The regime of a row in a step, from the norms of its lattice displacement over its D weights, the first that holds:
early L2 > √D; midlife L∞ > 1; late L1 > 0; frozen L1 = 0. Fractions of the rows in each regime sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_train.dynamics.arrays import Flags, Floats, Integers, dot
from duckling_train.dynamics.lattice import bf16_bits, lattice, ulp

FROZEN, LATE, MIDLIFE, EARLY = range(4)
REGIMES = ("frozen", "late", "midlife", "early")
"""The names of the regimes by their number, the coldest first."""


@dataclass(frozen=True)
class Cuts:
    """Where one regime ends and the next begins."""

    late: float = 1.0
    """A row whose L∞ is above it is no longer late."""
    early: float | None = None
    """A row whose L2 is above it is early. None is √D, for rows of D weights."""

    def __post_init__(self) -> None:
        if not (self.late >= 0 and (self.early is None or self.early >= 0)):  # NaN is neither
            raise InputError(f"the cuts {self.late} and {self.early} of the regimes: expected numbers from 0 up.")


DEFAULT_CUTS = Cuts()


class Norms(NamedTuple):
    """The norms of lattice displacements, one each for a row."""

    l1: Integers
    """Σ|k|, int64."""
    l2_squared: Integers
    """Σk², int64: L2 is its root, and compared without rounding."""
    linf: Integers
    """max |k|, int64."""

    @property
    def l2(self) -> Floats:
        """√Σk², float64."""
        return np.asarray(np.sqrt(self.l2_squared.astype(np.float64)))

    def of(self, rows: slice | Integers) -> Norms:
        """Return the norms of some of the rows."""
        return Norms(*(each[rows] for each in self))


def lattice_displacement(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Return k(after) − k(before) of the bf16 values nearest to the weights, int32 of their shape.

    Raises InputError for what is not finite.
    """
    return lattice(bf16_bits(after)) - lattice(bf16_bits(before))


def ulp_displacement(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> Floats:
    """Return Δ / ULP(before) of the bf16 values nearest to the weights, float64: beside the lattice displacement.

    The two agree where sign and exponent stay. Near zero this one is huge. Raises InputError for what is not finite.
    """
    old, new = bf16_bits(before), bf16_bits(after)
    return (_value(new) - _value(old)) / ulp(old)


def norms(displacement: npt.NDArray[np.int32]) -> Norms:
    """Return the norms of lattice displacements, int32[..., rows, width]; exact below a width of 2 million."""
    size = np.abs(displacement).astype(np.float64)  # sums of squares are whole numbers below 2^53
    l1, squares = np.einsum("...j->...", size), dot(size, size)
    largest = np.abs(displacement).max(axis=-1)
    return Norms(l1.astype(np.int64), squares.astype(np.int64), largest.astype(np.int64))


def regimes(of: Norms, width: int, cuts: Cuts = DEFAULT_CUTS) -> npt.NDArray[np.int8]:
    """Return the regime of each row, int8: an index into REGIMES."""
    squared = width if cuts.early is None else cuts.early**2
    found = np.where(of.l1 > 0, LATE, FROZEN)
    found = np.where(of.linf > cuts.late, MIDLIFE, found)
    return np.where(of.l2_squared > squared, EARLY, found).astype(np.int8)


def fractions(of: npt.NDArray[np.int8]) -> Floats:
    """Return the share of the rows in each regime, in the order of REGIMES, float64[4]; NaN where there are no rows."""
    counted = np.bincount(of, minlength=len(REGIMES)).astype(np.float64)
    return counted / of.size if of.size else np.full(len(REGIMES), np.nan)


def hops(of: Norms, width: int) -> dict[str, Flags]:
    """Return the rows that the other published cuts name, a flag each. They are not exclusive.

    `teleporting` L2 > √D, `neighbour` L∞ = 1, `face_adjacent` L1 = 1, `frozen` L1 = 0.
    """
    return {
        "teleporting": of.l2_squared > width, "neighbour": of.linf == 1, "face_adjacent": of.l1 == 1,
        "frozen": of.l1 == 0,
    }  # fmt: skip


def _value(bits: npt.NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
