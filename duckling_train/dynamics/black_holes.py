"""Black holes: groups of bit-identical rows.

Two rows are of one group where all their bits are equal, in float32 or, separately, in bf16 (+0 and -0 differ). Rows
in one group move alike: their gradients are the same. Two groups are adjacent where the lattice distance
of their rows is 1: the largest difference of their bf16 lattice coordinates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duckling_data.base.progress import nothing
from duckling_train.dynamics.neighbours import near_pairs
from duckling_train.dynamics.rows import Done, Ids, Rows, block_rows, blocks

View = Callable[[NDArray[np.float32]], NDArray[Any]]


def float32_view(values: NDArray[np.float32]) -> NDArray[Any]:
    """Return the float32 values themselves: the view in which their bits are compared."""
    return np.ascontiguousarray(values)


def black_holes(rows: Rows, view: View = float32_view, done: Done = nothing) -> list[Ids]:
    """Return the groups of two or more rows with equal bits, by their first row: each an int64 array, rising.

    `view` is `float32_view` or `lattice.bf16_bits`. Rows are hashed, and those with equal hashes compared. Raises
    InputError as `blocks` does.
    """
    digests = np.empty(rows.shape[0], np.uint64)
    for first, block in blocks(rows, done):
        hashed = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in view(block))
        digests[first : first + len(block)] = np.frombuffer(hashed, np.uint64)
    _, digest, times = np.unique(digests, return_inverse=True, return_counts=True)
    again = np.flatnonzero(times[digest] > 1)
    again = again[np.argsort(digest[again], kind="stable")]
    alike = np.split(again, np.flatnonzero(np.diff(digest[again])) + 1)
    groups = [group for members in alike for group in _equal(rows, members, view)]
    return sorted(groups, key=lambda group: int(group[0]))


def _equal(rows: Rows, members: Ids, view: View) -> list[Ids]:
    """Return the groups of two or more of these rows that are equal in every bit."""
    found: dict[bytes, list[int]] = {}
    step = block_rows(rows.shape[1])
    for first in range(0, len(members), step):
        part = members[first : first + step]
        for row, values in zip(part, view(rows[part]), strict=True):
            found.setdefault(values.tobytes(), []).append(int(row))
    return [np.array(group) for group in found.values() if len(group) > 1]


def adjacent_groups(rows: Rows, groups: list[Ids], done: Done = nothing) -> Ids:
    """Return the pairs of groups of bf16-identical rows whose lattice distance is 1: their numbers, int64, k x 2.

    Each pair is once there, the lower number first, in order. Raises InputError as `blocks` does.
    """
    firsts = np.array([group[0] for group in groups], np.int64)  # rising, as the groups are
    if not len(firsts):
        return np.empty((0, 2), np.int64)
    found = [np.stack([i, j], axis=1)[apart == 1] for i, j, apart in near_pairs(rows, firsts, done=done)]
    pairs = np.searchsorted(firsts, np.concatenate([*found, np.empty((0, 2), np.int64)]))
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
