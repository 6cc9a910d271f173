"""A record in memory, as the reader of a recording shows one; and rows that move as dead rows do in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class ArrayTensor:
    """A recorded tensor: an array, or what gives a block of one on demand."""

    def __init__(self, values: Floats, block: int = 8) -> None:
        self.values, self.block = values, block

    def __getitem__(self, part: Any) -> Floats:
        return self.values[part]

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Floats]]:
        stop = len(self.values) if stop is None else stop
        for first in range(start, stop, self.block):
            yield first, self.values[first : min(first + self.block, stop)].copy()


@dataclass
class ArrayRecord:
    """A record of arrays."""

    steps: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    dead: npt.NDArray[np.bool_]
    W: Any
    others: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    @property
    def width(self) -> int:
        return int(self.W[0].shape[1])

    @property
    def tensors(self) -> tuple[str, ...]:
        return ("W", *self.others)

    def __getitem__(self, name: str) -> Any:
        return self.W if name == "W" else self.others[name]


class Drifting(ArrayTensor):
    """Dead rows that drift as one, each a little differently, ever more slowly: made block by block, never all held."""

    def __init__(self, steps: int, rows: int, width: int, block: int):
        rng = np.random.default_rng(0)
        self.steps, self.block, self.start = steps, block, rng.normal(0, 0.02, (rows, width)).astype(np.float32)
        drift, own = rng.normal(0, 1, width), rng.normal(0, 0.1, (rows, width))
        self.rate = (1e-4 * (drift + own)).astype(np.float32)
        self.noise = rng.normal(0, 1e-7, (7, rows, width)).astype(np.float32)

    def __len__(self) -> int:
        return self.steps

    def at(self, step: int) -> Floats:
        """W at a step: the drift fades linearly to the end."""
        done = np.float32(step - step * step / (2 * self.steps))
        return self.start + self.rate * done + self.noise[step % len(self.noise)]

    def __getitem__(self, part: Any) -> Floats:
        if isinstance(part, slice):
            return np.stack([self.at(step) for step in range(*part.indices(self.steps))])
        return self.at(part % self.steps)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Floats]]:
        stop = self.steps if stop is None else stop
        for first in range(start, stop, self.block):
            yield first, self[first : min(first + self.block, stop)]
