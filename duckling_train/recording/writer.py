"""Writes a record: steps are coded as they come, and every `shard` steps make a file of each tensor.

`flush` writes the steps of the file that is being filled, too; it is replaced by a fuller one later. Blocks and files
begin at fixed steps, so a record that was interrupted and went on has the bytes of one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.files import remove
from duckling_train.engines.base import DivergedError
from duckling_train.recording import chunks
from duckling_train.recording.codec import BLOCK, Array, Floats, itemsize, joined, pack, residual, too_large, unpack
from duckling_train.recording.layout import DEAD, ROWS, STEPS, Layout, Place
from duckling_train.recording.record import Record

ADVICE = "train the run again with --overwrite, or --resume it with --on-record-error continue"
Values = Mapping[str, Array]
"""A step's: of a matrix float32[rows, width], or the bits of bf16, uint16; of a vector float32."""


class Matrix:
    """A matrix of the shard that is being filled."""

    def __init__(self, name: str, layout: Layout, coding: str) -> None:
        self.name, self.coding, self.few = name, coding, layout.chunk_rows(coding)
        self._kind = np.uint16 if itemsize(coding) == 2 else np.uint32
        padded = -(-layout.rows // self.few) * self.few
        self._residuals = np.zeros((BLOCK, padded, layout.width), self._kind)
        self._rows = layout.rows
        self.clear()

    def clear(self) -> None:
        """Begin a shard."""
        self._finished: list[bytes] = []
        self.means: list[Floats] = []
        self._earlier: list[Array] = []
        self._filled = 0

    def check(self, step: int, values: Array) -> None:
        """Raise DivergedError for a number that a record does not hold."""
        if values.dtype == np.float32 and (number := too_large(values)) is not None:
            raise DivergedError(f"{self.name} holds {number:g} at step {step:,}; a record holds numbers below 2^125")

    def add(self, values: Array) -> None:
        """Code a step."""
        made, mean = residual(values, self._earlier, self.coding)
        self._take(made, mean, values)

    def _take(self, made: Array, mean: Floats | None, values: Array) -> None:
        self._residuals[self._filled, : self._rows] = made
        if mean is not None:
            self.means.append(mean)
        self._filled += 1
        self._earlier = [*self._earlier[-1:], values]
        if self._filled == BLOCK:
            self._finished += self._packed()
            self._earlier, self._filled = [], 0

    def _packed(self) -> list[bytes]:
        """Return the chunks of the block; steps that are not there yet are 0."""
        self._residuals[self._filled :] = 0
        firsts = range(0, self._residuals.shape[1], self.few)
        return [chunks.summed(pack(self._residuals[:, first : first + self.few])) for first in firsts]

    def shard(self, steps: int) -> bytes:
        """Return the shard of so many steps."""
        made = self._finished + (self._packed() if self._filled else [])
        count = steps // BLOCK * (self._residuals.shape[1] // self.few)
        return chunks.shard(made + [b""] * (count - len(made)))

    def restore(self, place: Place, number: int, steps: int, shard: int, means: Floats | None, last: Array) -> None:
        """Take the first steps of a shard on disk; `last` are the values of the part block's steps."""
        per_block, size = self._residuals.shape[1] // self.few, itemsize(self.coding)
        part = steps % BLOCK
        with chunks.Shard(place.shard(self.name, number), shard // BLOCK * per_block) as file:
            self._finished = file.chunks(steps // BLOCK * per_block)
            for chunk in range(per_block) if part else ():
                content = file.chunk(steps // BLOCK * per_block + chunk, f"step block {steps // BLOCK}")
                shape = (BLOCK, self.few, self._residuals.shape[2])
                made = joined(unpack(content, shape, size))
                self._residuals[:, chunk * self.few : (chunk + 1) * self.few] = made
        self.means = list(means) if means is not None else []
        self._filled, self._earlier = part, list(last[-2:])


class Writer:
    """Writes the record at a place."""

    def __init__(self, place: Path, layout: Layout) -> None:
        self.place, self.layout = Place(place), layout
        self._matrices = [Matrix(name, layout, coding) for name, coding in layout.codings.items()]
        self._vectors: dict[str, list[Array]] = {name: [] for name in layout.vectors}
        self._steps: list[int] = []
        self._number = 0
        """The shard that is being filled."""
        self._unwritten = False

    def create(self, rows: npt.NDArray[np.int64], dead: npt.NDArray[np.bool_]) -> None:
        """Begin an empty record in the place of whatever is there."""
        self.place.create(self.layout)
        self.place.write(ROWS, (0,), chunks.plain(rows.astype("<i8"), compressed=False))
        self.place.write(DEAD, (0,), chunks.plain(dead, compressed=False))

    def add(self, step: int, values: Values) -> None:
        """Record a step: its matrices and vectors by name. Raises as `Matrix.check` and `disk_errors` do."""
        for matrix in self._matrices:
            matrix.check(step, values[matrix.name])
        for matrix in self._matrices:
            matrix.add(values[matrix.name])
        for name, kept in self._vectors.items():
            kept.append(values[name])
        self._steps.append(step)
        self._unwritten = True
        if len(self._steps) == self.layout.shard:
            self.close()
            self._begin(self._number + 1)

    def flush(self) -> None:
        """Write the steps of the shard that is being filled; the file of steps last."""
        if not self._unwritten:
            return
        count, number = self.layout.shard, self._number
        for matrix in self._matrices:
            self.place.write(f"{matrix.name}/residual", (number, 0, 0, 0), matrix.shard(count))
            if matrix.means:
                means = _filled(np.stack(matrix.means), count, 0)
                self.place.write(f"{matrix.name}/c", (number, 0), chunks.plain(means, compressed=True))
        for name, kept in self._vectors.items():
            values = _filled(np.stack(kept).astype(np.float32), count, 0)
            self.place.write(name, (number, 0), chunks.plain(values, compressed=True))
        steps = _filled(np.array(self._steps, "<i8"), count, -1)
        self.place.write(STEPS, (number,), chunks.plain(steps, compressed=False))
        self._unwritten = False

    def close(self) -> None:
        """Write what is left, and the arrays' shapes, which stock zarr reads."""
        self.flush()
        self.place.describe(self.layout, self._number * self.layout.shard + len(self._steps))

    def _begin(self, number: int) -> None:
        self._number, self._steps, self._unwritten = number, [], False
        for matrix in self._matrices:
            matrix.clear()
        for kept in self._vectors.values():
            kept.clear()

    def go_on(self, after: int) -> None:
        """Take up the record on disk behind the step `after`; what comes later in it is removed.

        Raises InputError where it is of another run or of other settings, lacks a step up to that one, or is damaged.
        """
        record = Record.open(self.place.path)
        if record.layout != self.layout:
            raise InputError(f"{self.place.path} is another run's record, or one of other settings; {ADVICE}")
        kept = int(np.searchsorted(record.steps, after, side="right"))
        expected = after // self.layout.every + 1
        if kept != expected:
            raise InputError(
                f"{self.place.path} holds {kept:,} of the {expected:,} steps up to step {after:,}; {ADVICE}"
            )
        number, part = divmod(kept, self.layout.shard)
        self._remove_from(number if part == 0 else number + 1)
        self._begin(number)
        if part:
            self._restore(record, number, part)
            self._unwritten = True
        self.close()

    def _restore(self, record: Record, number: int, part: int) -> None:
        first = number * self.layout.shard
        self._steps = [int(step) for step in record.steps[first : first + part]]
        block = first + part // BLOCK * BLOCK
        for matrix in self._matrices:
            series = record[matrix.name]
            values = (series.bf16 if itemsize(matrix.coding) == 2 else series)[block : first + part]
            means = record.parts.means(matrix.name, number)[:part] if itemsize(matrix.coding) == 4 else None
            matrix.restore(self.place, number, part, self.layout.shard, means, values)
        for name, kept in self._vectors.items():
            kept.extend(record[name][first : first + part])

    def _remove_from(self, number: int) -> None:
        """Remove every shard from this one on, the last first, and of each the file of steps first."""
        last = number
        while self.place.file(STEPS, last).exists():
            last += 1
        for each in range(last, number - 1, -1):  # the last may be without its steps
            remove(self.place.file(STEPS, each))
            for name in self.layout.tensors:
                remove(self.place.shard(name, each))
                remove(self.place.file(f"{name}/c", each, 0))


def _filled(values: Array, count: int, fill: int) -> Array:
    """Return the values with so many in all, those that are not there yet being `fill`."""
    rest = np.full((count - len(values), *values.shape[1:]), fill, values.dtype)
    return np.concatenate([values, rest])
