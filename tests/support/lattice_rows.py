"""Rows near each other on the lattice of bf16, and slow restatements of what is measured of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.float32]

EDGES = [0.0, -0.0, 1e-40, -1e-40, 9.2e-41, 1.9921875, 2.0, -1.9921875, -2.0, 1e38, -3e38]
"""Both zeros, subnormals, a crossing of the exponent from either side, large values."""


def coordinate(value: float) -> int:
    """The lattice coordinate of one float32 value: torch rounds it, and its sign and magnitude are told apart here."""
    bits = int(torch.tensor(value, dtype=torch.float32).bfloat16().view(torch.int16)) & 0xFFFF
    return -(bits & 0x7FFF) if bits >> 15 else bits


def from_coordinates(k: NDArray[np.int64]) -> Rows:
    """The float32 values at lattice coordinates."""
    bits = np.where(k < 0, -k | 0x8000, k).astype(np.uint32) << np.uint32(16)
    return bits.view(np.float32)


def crowded(
    seed: int, count: int, width: int, *, groups: int = 12, spread: int = 2, base: int = 0, far: int = 50
) -> Rows:
    """Rows around centres beside `base`, a few lattice steps from them: many are equal, and many are neighbours."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(-300, 300, (groups, width)) * rng.integers(0, far, (groups, 1))
    moved = rng.integers(-spread, spread + 1, (count, width)) * (rng.random((count, width)) < 2.0 / width)
    return from_coordinates(base + centres[rng.integers(0, groups, count)] + moved)


def distance(first: Iterable[float], second: Iterable[float]) -> int:
    """The lattice distance L-infinity of two rows."""
    return max(abs(coordinate(a) - coordinate(b)) for a, b in zip(first, second, strict=True))


def slow_groups(keys: list[bytes]) -> list[list[int]]:
    """The groups of two or more equal keys, by comparing each with each."""
    firsts = [next(other for other in range(row + 1) if keys[other] == keys[row]) for row in range(len(keys))]
    groups = [[row for row in range(len(keys)) if firsts[row] == first] for first in sorted({*firsts})]
    return [group for group in groups if len(group) > 1]


def bf16_keys(rows: Rows) -> list[bytes]:
    """The bf16 bits of each row, by torch."""
    return [row.tobytes() for row in torch.from_numpy(rows.copy()).bfloat16().view(torch.int16).numpy()]


def slow_components(rows: Rows) -> list[int]:
    """The number of each row's component, in the order of their first rows: every row compared with every other."""
    k = np.array([[coordinate(value) for value in row] for row in rows.tolist()]).reshape(rows.shape)
    numbers = [-1] * len(rows)
    count = 0
    for start in range(len(rows)):
        if numbers[start] < 0:
            waiting = [start]
            while waiting:
                row = waiting.pop()
                if numbers[row] < 0:
                    numbers[row] = count
                    waiting += np.flatnonzero(np.abs(k - k[row]).max(axis=1) <= 1).tolist()
            count += 1
    return numbers
