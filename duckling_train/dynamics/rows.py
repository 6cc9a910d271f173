"""The rows of a matrix as the measurements read them: in blocks of bounded size, so that it need not be in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from duckling_data.base.errors import InputError
from duckling_data.base.progress import nothing

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Ids = NDArray[np.int64]
Done = Callable[[int], object]
"""Is told how many more rows were read."""

BLOCK = 1 << 22
"""Values of a block, at most: 32 MiB of float64."""
SMALL = 1 << 15
"""Values of a block of which several copies fit in a processor's cache as float64."""
TOO_LARGE = float.fromhex("0x1.ffp127")
"""The smallest value that bf16 rounds to infinity."""


class Rows(Protocol):
    """A matrix of weights, n x width: a numpy array of float32, or what reads such rows from a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and their width."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return the rows of a slice or of an array of row numbers, float32, k x width."""


def block_rows(width: int, values: int | None = None) -> int:
    """Return how many rows of a `width` make a block of so many values, BLOCK unless given."""
    return max(1, (values or BLOCK) // max(width, 1))


def blocks(rows: Rows, done: Done = nothing, values: int | None = None) -> Iterator[tuple[int, Float32]]:
    """Yield the number of a block's first row and the block, float32, k x width, in order.

    Raises InputError, which names the row, for a value that is not finite in bf16: NaN, infinity, or above its range.
    """
    step = block_rows(rows.shape[1], values)
    for first in range(0, rows.shape[0], step):
        block: Float32 = rows[first : first + step]
        within = np.abs(block) < TOO_LARGE
        if not within.all():
            row, column = np.argwhere(~within)[0]
            value = float(block[row, column])
            raise InputError(f"row {first + row} has the value {value:g}; expected weights that are finite in bf16")
        yield first, block
        done(len(block))
