"""The ids of each step of K models on their device, in tensors that stay where they are: what a CUDA graph reads.

The rows lie on the device as they are stored, where they fit, and a step sends the numbers of its rows; otherwise a
step sends the rows themselves. Either is a copy from pinned memory, for which nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from duckling_data.rows.read import Column
from duckling_train.engines.fast.order import Batches
from duckling_train.model import mask_of

PIECE = 8192
"""Rows that are copied to the device at once."""


class Feed:
    """The rows of K models' steps, and the positions in their stories where the models mask across stories."""

    def __init__(self, batches: Sequence[Batches], device: torch.device, room: int) -> None:
        """`room` are the bytes of the device that rows may take."""
        self._batches = batches
        self._columns: list[list[Column[Any]]] = [
            [each.rows.rows, *([each.rows.positions] if each.masked and each.rows.positions is not None else [])]
            for each in batches
        ]
        first, models, size = self._columns[0], len(batches), batches[0].size
        taken = sum(len(column) * column.ctx * column.dtype.itemsize for column in first)
        self._resident = taken <= room and all(each.rows.rows is first[0] for each in batches)
        self._numbers = torch.zeros(models, size, dtype=torch.int64, device=device)
        self._bits = (1 << 8 * first[0].dtype.itemsize) - 1
        if self._resident:
            self._tables = [_copied(column, device) for column in first]
        else:
            shapes = [(models, size, column.ctx) for column in first]
            dtypes = [_signed(column[:0]).dtype for column in first]
            self._tables = [
                torch.zeros(*shape, dtype=of, device=device) for shape, of in zip(shapes, dtypes, strict=True)
            ]

    def fill(self, step: int) -> int:
        """Send a step's rows. Returns how many each model has of them."""
        chosen = [each.indices(step) for each in self._batches]
        count = len(chosen[0])
        if self._resident:
            send(torch.tensor(chosen), self._numbers[:, :count])
            return count
        for kind, table in enumerate(self._tables):
            rows = [own[kind][row] for own, numbers in zip(self._columns, chosen, strict=True) for row in numbers]
            send(_signed(np.stack(rows)).view(len(chosen), count, -1), table[:, :count])
        return count

    def __call__(self, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return int64[K, rows, context] ids of the step that was sent, and the mask of `Step.gradients`."""
        at = self._numbers[:, :count]
        ids, *positions = (table[at] if self._resident else table[:, :count] for table in self._tables)
        return ids.long() & self._bits, mask_of(positions[0].flatten(0, 1) == 0) if positions else None

    def release(self) -> None:
        """Free the rows' memory."""
        self._tables.clear()


def send(values: torch.Tensor, into: torch.Tensor) -> None:
    """Copy values of the CPU, without waiting: from pinned memory of their own, which torch keeps until then."""
    into.copy_(values.pin_memory() if into.is_cuda else values, non_blocking=True)


def _copied(column: Column[Any], device: torch.device) -> torch.Tensor:
    table = torch.empty(len(column), column.ctx, dtype=_signed(column[:0]).dtype, device=device)
    for first in range(0, len(column), PIECE):
        table[first : first + PIECE].copy_(_signed(column[first : first + PIECE]))
    return table


def _signed(values: npt.NDArray[Any]) -> torch.Tensor:
    """Return unsigned integers as signed ones of the same bits: torch computes little with the former."""
    return torch.from_numpy(values.view(f"i{values.itemsize}"))
