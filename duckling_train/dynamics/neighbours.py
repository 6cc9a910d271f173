"""Pairs of rows at a lattice distance of at most 1, found without comparing every row with every other.

Distance is L-infinity: the largest difference of two rows' bf16 lattice coordinates, over all columns. Rows are sorted
by three columns, and in that order looked up only where those three agree within 1; then a few columns more, and at
last all of them. What is found is exact; the columns, those that tell most rows of a sample apart, decide the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from duckling_data.base.progress import nothing
from duckling_train.dynamics.lattice import bf16_bits, lattice
from duckling_train.dynamics.rows import Done, Ids, Rows, block_rows, blocks

SAMPLE = 1024
"""Rows of which the columns are chosen."""
COLUMNS = 16
"""Columns that are compared before all of them are."""
PAIRS = 1 << 20
"""Pairs that are looked at at a time."""
SHIFT = 1 << 16
"""What makes a lattice coordinate, and those beside it, positive; below it, they take 17 bits."""

Pairs = tuple[Ids, Ids]
Keep = Callable[[Ids, Ids], NDArray[np.bool_]]


def _all(first: Ids, second: Ids) -> NDArray[np.bool_]:
    return np.ones(len(first), bool)


def near_pairs(rows: Rows, ids: Ids, keep: Keep = _all, done: Done = nothing) -> Iterator[tuple[Ids, Ids, Ids]]:
    """Yield all pairs i < j of the rows `ids` (rising) at distance 0 or 1: i, j and the distance, in blocks.

    `keep` may leave out pairs that are of no more use, before they are compared. Raises InputError as `blocks` does.
    """
    keys = _keys(rows, ids, done)
    step = block_rows(rows.shape[1])
    for left, right in _agreeing(keys):
        for first in range(0, len(left), step):
            i, j = ids[left[first : first + step]], ids[right[first : first + step]]
            i, j = np.minimum(i, j), np.maximum(i, j)
            wanted = keep(i, j)
            i, j = i[wanted], j[wanted]
            apart = np.abs(_lattice(rows[i]) - _lattice(rows[j])).max(axis=1, initial=0)
            near = apart <= 1
            yield i[near], j[near], apart[near].astype(np.int64)


def _lattice(values: NDArray[np.float32]) -> NDArray[np.int32]:
    return lattice(bf16_bits(values))


def _keys(rows: Rows, ids: Ids, done: Done) -> NDArray[np.int64]:
    """Return the lattice coordinates of the rows `ids` in the columns that tell rows apart, at least three columns."""
    sample = np.sort(_lattice(rows[ids[:: max(1, len(ids) // SAMPLE)]]), axis=0)
    crowded = (np.diff(sample, axis=0) <= 1).sum(axis=0)
    columns = np.argsort(crowded, kind="stable")[:COLUMNS]
    keys = np.zeros((len(ids), max(3, len(columns))), np.int64)
    for first, block in blocks(rows, done):
        low, high = np.searchsorted(ids, [first, first + len(block)])
        keys[low:high, : len(columns)] = _lattice(block[ids[low:high] - first][:, columns])
    return keys


def _agreeing(keys: NDArray[np.int64]) -> Iterator[Pairs]:
    """Yield every pair of rows that agree within 1 in all columns of `keys`, as two arrays of positions, in blocks."""
    shifted = keys[:, :3] + SHIFT
    place = (shifted[:, 0] << 34) | (shifted[:, 1] << 17) | shifted[:, 2]
    order = np.argsort(place, kind="stable")
    place, keys = place[order], keys[order]
    for step in (0, 1 << 17, (1 << 34) - (1 << 17), 1 << 34, (1 << 34) + (1 << 17)):  # what comes later in the order
        low = np.searchsorted(place, place + (step - 1)) if step else np.arange(1, len(place) + 1)
        counts = np.searchsorted(place, place + (step + 1), side="right") - low
        for left, right in _expanded(low, counts):
            for column in range(keys.shape[1]):
                within = np.abs(keys[left, column] - keys[right, column]) <= 1
                left, right = left[within], right[within]
            yield order[left], order[right]


def _expanded(low: Ids, counts: Ids) -> Iterator[Pairs]:
    """Yield the pairs (p, q) with q from low[p] to low[p] + counts[p] - 1, about PAIRS at a time."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(low):
        before = ends[begin] - counts[begin]
        end = max(begin + 1, int(np.searchsorted(ends, before + PAIRS, side="right")))
        taken = counts[begin:end]
        left = np.repeat(np.arange(begin, end), taken)
        offsets = np.arange(len(left)) - np.repeat(np.cumsum(taken) - taken, taken)
        yield left, low[left] + offsets
        begin = end
