"""Reads parts of a record's files: some steps of a shard, of some rows, decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duckling_train.recording import chunks
from duckling_train.recording.chunks import Damaged
from duckling_train.recording.codec import BLOCK, Array, Floats, decode, itemsize, joined, unpack
from duckling_train.recording.layout import STEPS, Layout, Place

MAX_DIGITS = 5
"""Of a shard's number: 100,000 of them hold terabytes."""
SPAN = 256
"""Rows that are decoded at a time: their steps stay in a processor's cache."""


@dataclass(frozen=True)
class Parts:
    """The files of a record."""

    place: Place
    layout: Layout
    rows: npt.NDArray[np.int64]
    """The ids of the recorded rows."""

    @property
    def width(self) -> int:
        """The numbers of a row."""
        return self.layout.width

    def means(self, name: str, shard: int) -> Floats:
        """Return c of the shard's steps, float32[steps, width]."""
        made = chunks.read_plain(
            self.place.file(f"{name}/c", shard, 0), "<f4", (self.layout.shard, self.width), compressed=True
        )
        return made.astype(np.float32, copy=False)

    def vectors(self, name: str, shard: int) -> Floats:
        """Return a vector of the shard's steps, float32[steps, numbers]."""
        shape = (self.layout.shard, self.layout.vector(name))
        return chunks.read_plain(self.place.shard(name, shard), "<f4", shape, compressed=True).astype(np.float32)

    def part(self, name: str, shard: int, steps: slice, rows: slice, *, only_read: bool = False) -> Array:
        """Return steps of a shard of a matrix: float32[steps, rows, width], or the bits of bf16, uint16.

        `steps` is counted in the shard. Raises Damaged, naming the chunk, for what is not what was written.
        """
        coding = self.layout.codings[name]
        means = self.means(name, shard) if itemsize(coding) == 4 else None
        first, end, _ = rows.indices(self.layout.rows)
        kind = np.float32 if means is not None else np.uint16
        made = np.empty((steps.stop - steps.start, end - first, self.width), kind)
        with self._shard(name, shard) as file:
            for begin in range(steps.start // BLOCK * BLOCK, steps.stop, BLOCK):
                stop, since = min(begin + BLOCK, steps.stop), max(begin, steps.start)
                for low in range(first, end, SPAN):
                    some = slice(low, min(low + SPAN, end))
                    residuals = self._residuals(name, file, shard, slice(begin, stop), some)
                    if only_read:
                        continue
                    decoded = decode(residuals, means[begin:stop] if means is not None else None, coding)
                    made[since - steps.start : stop - steps.start, low - first : some.stop - first] = decoded[
                        since - begin :
                    ]
        return made

    def row(self, name: str, at: int, positions: npt.NDArray[np.int64]) -> Array:
        """Return the steps at these positions of a row, by its number among those recorded. Raises as `part` does.

        Blocks are decoded side by side: 16 operations for all of them.
        """
        coding, shard = self.layout.codings[name], self.layout.shard
        residuals, means = [], []
        numbers = sorted({int(position) // shard for position in positions})
        for number in numbers:
            held = int((positions // shard == number).sum())
            part = np.zeros((shard, 1, self.width), np.uint32 if itemsize(coding) == 4 else np.uint16)
            with self._shard(name, number) as file:
                for begin in range(0, held, BLOCK):
                    block = slice(begin, begin + BLOCK)
                    part[block] = self._residuals(name, file, number, block, slice(at, at + 1))
            residuals.append(part.reshape(-1, BLOCK, *part.shape[1:]))
            if itemsize(coding) == 4:
                means.append(self.means(name, number).reshape(-1, BLOCK, self.width))
        decoded = decode(np.concatenate(residuals), np.concatenate(means) if means else None, coding)
        steps = decoded.reshape(len(numbers), shard, self.width)
        places = np.searchsorted(numbers, positions // shard), positions % shard
        values: Array = steps[places]
        return values

    def _shard(self, name: str, shard: int) -> chunks.Shard:
        layout = self.layout
        per_block = -(-layout.rows // layout.chunk_rows(layout.codings[name]))
        return chunks.Shard(self.place.shard(name, shard), layout.shard // BLOCK * per_block)

    def _residuals(self, name: str, file: chunks.Shard, shard: int, steps: slice, rows: slice) -> Array:
        """Return the residuals of a block's first steps, from `steps.start` to before `steps.stop` in the shard."""
        layout, coding = self.layout, self.layout.codings[name]
        few, size, count = layout.chunk_rows(coding), itemsize(coding), steps.stop - steps.start
        per_block = -(-layout.rows // few)
        made = np.empty((count, rows.stop - rows.start, self.width), np.uint32 if size == 4 else np.uint16)
        for number in range(rows.start // few, -(-rows.stop // few)):
            content = file.chunk(
                steps.start // BLOCK * per_block + number, self._named(shard, steps.start, number, few)
            )
            first, end = max(rows.start, number * few), min(rows.stop, (number + 1) * few)
            own = slice(first - number * few, end - number * few)
            planes = _planes(file.path, content, (size, BLOCK, few, self.width))
            made[:, first - rows.start : end - rows.start] = joined([plane[:count, own] for plane in planes])
        return made

    def _named(self, shard: int, begin: int, number: int, few: int) -> str:
        """Return what a chunk holds, for a person."""
        first = (shard * self.layout.shard + begin) * self.layout.every
        last = first + (BLOCK - 1) * self.layout.every
        rows = self.rows[number * few : (number + 1) * few]
        return f"steps {first:,} to {last:,}, rows {rows[0]:,} to {rows[-1]:,}"


def _planes(path: Path, content: bytes, shape: tuple[int, ...]) -> list[npt.NDArray[np.uint8]]:
    try:
        return unpack(content, shape[1:], shape[0])
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({error})") from error


def read_steps(place: Place, layout: Layout, *, around: bool) -> npt.NDArray[np.int64]:
    """Return the steps recorded by their place in the files; -1 for those of a missing file, which `around` allows."""
    names = [path.name[2:] for path in (place.path / STEPS).glob("c.*")]
    numbers = sorted(int(name) for name in names if name.isdecimal() and len(name) <= MAX_DIGITS)
    expected = layout.every * np.arange((numbers[-1] + 1 if numbers else 0) * layout.shard)
    steps = np.full(len(expected), -1, np.int64)
    for number in range(len(expected) // layout.shard):
        part = slice(number * layout.shard, (number + 1) * layout.shard)
        try:
            read = chunks.read_plain(place.file(STEPS, number), "<i8", (layout.shard,), compressed=False)
            last = number == numbers[-1]
            held = int((read >= 0).sum()) if last else layout.shard
            if held == 0 or (read[:held] != expected[part][:held]).any() or (read[held:] != -1).any():
                raise Damaged(f"{place.file(STEPS, number)} is damaged (steps are missing)")
            steps[part] = read
        except Damaged:
            if not around:
                raise
    return steps
