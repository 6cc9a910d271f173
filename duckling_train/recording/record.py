"""Reads a record, also of a run that still trains: steps, rows and slices as NumPy arrays, decoded when asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.executor import prefetch
from duckling_train.recording import chunks
from duckling_train.recording.chunks import Damaged
from duckling_train.recording.codec import (
    BLOCK,
    Array,
    Floats,
    bf16_bits,
    decode,
    itemsize,
    joined,
    unpack,
    widened,
)
from duckling_train.recording.layout import DEAD, ROWS, STEPS, Layout, Place

SPAN = 256
"""Rows that are decoded at a time: their steps stay in a processor's cache."""


@dataclass(frozen=True)
class Record:
    """A run's record.

    >>> tracker = duckling_ii("artifacts").train(2, run="recorded", record="dead")
    >>> record = open_run("recorded").record
    >>> record.steps[:3], record.W[0].shape
    (array([0, 1, 2]), (2048, 128))
    """

    place: Place
    layout: Layout
    steps: npt.NDArray[np.int64]
    """The optimizer steps recorded, rising; 0 is the first."""
    rows: npt.NDArray[np.int64]
    """The vocabulary's rows recorded, rising."""
    dead: npt.NDArray[np.bool_]
    """Which of `rows` no token has."""
    positions: npt.NDArray[np.int64] = field(repr=False)
    """Where each of `steps` is in the files: its own number, unless steps are left out."""

    @classmethod
    def open(cls, path: Path | str, *, around: bool = False) -> Record:
        """Open the record in a directory as it is now: a run that trains adds steps later.

        Where `around`, files that are missing or damaged are found first, and their steps left out of `steps`; else the
        first of them that is read is refused. Raises InputError for what is no record.
        """
        place = Place(Path(path))
        layout = place.layout()
        rows = chunks.read_plain(place.file(ROWS, 0), "<i8", (layout.rows,), compressed=False)
        dead = chunks.read_plain(place.file(DEAD, 0), "?", (layout.rows,), compressed=False)
        if (np.diff(rows.astype(np.int64)) <= 0).any():
            raise Damaged(f"{place.file(ROWS, 0)} is damaged (rows do not rise)")
        steps = _steps(place, layout, around=around)
        record = cls(place, layout, steps, rows.astype(np.int64), dead.astype(np.bool_), np.flatnonzero(steps >= 0))
        bad = {number for number, _ in record.faults()} if around else set()
        there = np.array([number for number in record.positions if number // layout.shard not in bad], np.int64)
        return replace(record, steps=steps[there], positions=there)

    @property
    def width(self) -> int:
        """The numbers of a row."""
        return self.layout.width

    @property
    def dtype(self) -> str:
        """How W is recorded: float32 or bfloat16."""
        return self.layout.dtype

    @property
    def tensors(self) -> tuple[str, ...]:
        """What is recorded: W, and any of grad_in, grad_out, exp_avg, exp_avg_sq, h_mean, p_dead."""
        return self.layout.tensors

    @property
    def W(self) -> Series:  # noqa: N802  # the field's name for it
        """The embedding: `record.W[t]` is float32[rows, width] after the step `steps[t]`."""
        return self["W"]

    def __getitem__(self, name: str) -> Series:
        """Return what is recorded of a tensor. Raises InputError for one that is not."""
        if name not in self.tensors:
            raise InputError(f"{self.place.path} has no {name}; it has {', '.join(self.tensors)}")
        return Series(self, name)

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

    def faults(self) -> Iterator[tuple[int, str]]:
        """Yield (shard, fault) of every shard that is missing or damaged: all of it is read."""
        for shard in sorted({int(position) // self.layout.shard for position in self.positions}):
            for name in self.tensors:
                try:
                    if name in self.layout.vectors:
                        self.vectors(name, shard)
                    else:
                        self._check(name, shard)
                except Damaged as error:
                    yield shard, str(error)

    def _check(self, name: str, shard: int) -> None:
        """Read a matrix of a shard. Raises Damaged."""
        held = self.positions[self.positions // self.layout.shard == shard] % self.layout.shard
        self.part(name, shard, slice(0, int(held.max()) + 1), slice(None), only_read=True)

    def part(self, name: str, shard: int, steps: slice, rows: slice, *, only_read: bool = False) -> Array:
        """Return steps of a shard of a matrix: float32[steps, rows, width], or the bits of bf16, uint16.

        `steps` is counted in the shard. Raises Damaged, naming the chunk, for what is not what was written.
        """
        layout, coding = self.layout, self.layout.codings[name]
        few, kind = layout.chunk_rows(coding), np.uint32 if itemsize(coding) == 4 else np.uint16
        per_block, group = -(-layout.rows // few), max(1, SPAN // few)
        first, end, _ = rows.indices(layout.rows)
        means = self.means(name, shard) if kind == np.uint32 else None
        made = np.empty((steps.stop - steps.start, end - first, self.width), np.float32 if means is not None else kind)
        with chunks.Shard(self.place.shard(name, shard), layout.shard // BLOCK * per_block) as file:
            for begin in range(steps.start // BLOCK * BLOCK, steps.stop, BLOCK):
                stop = min(begin + BLOCK, steps.stop)
                for low in range(first // few, -(-end // few), group):
                    numbers = range(low, min(-(-end // few), low + group))
                    residuals = np.empty((stop - begin, len(numbers) * few, self.width), kind)
                    for at, number in enumerate(numbers):
                        content = file.chunk(
                            begin // BLOCK * per_block + number, self._named(shard, begin, number, few)
                        )
                        planes = _planes(file.path, content, (itemsize(coding), BLOCK, few, self.width))
                        residuals[:, at * few : (at + 1) * few] = joined([plane[: stop - begin] for plane in planes])
                    if only_read:
                        continue
                    decoded = decode(residuals, means[begin:stop] if means is not None else None, coding)
                    since, left, right = max(begin, steps.start), max(low * few, first), min(numbers.stop * few, end)
                    into = made[since - steps.start : stop - steps.start, left - first : right - first]
                    into[:] = decoded[since - begin :, left - low * few : right - low * few]
        return made

    def _named(self, shard: int, begin: int, number: int, few: int) -> str:
        """Return what a chunk holds, for a person."""
        first = (shard * self.layout.shard + begin) * self.layout.every
        last = first + (BLOCK - 1) * self.layout.every
        rows = self.rows[number * few : (number + 1) * few]
        return f"steps {first:,} to {last:,}, rows {rows[0]:,} to {rows[-1]:,}"


@dataclass(frozen=True)
class Series:
    """A tensor over the recorded steps: indexed like an array by step, decoded where it is asked for.

    Values are float32: of a matrix [rows, width] a step, of h_mean [width], of p_dead [rows]; bf16 is widened, which
    is exact.
    """

    record: Record
    name: str
    as_bits: bool = False

    @property
    def bf16(self) -> Series:
        """The same as the bits of bf16, uint16: as they were recorded, or float32 rounded to nearest even."""
        return replace(self, as_bits=True)

    def __len__(self) -> int:
        return len(self.record.steps)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> Array: ...
    def __getitem__(self, index: int | slice) -> Array:
        """Return the steps of these numbers: 0 is the first recorded, -1 the last. Raises IndexError beyond them."""
        if isinstance(index, slice):
            first, end, stride = index.indices(len(self))
            numbers = range(first, end, stride)
            if stride != 1:
                return np.stack([self[number] for number in numbers]) if numbers else self._read(range(0), slice(None))
            return self._read(numbers, slice(None))
        number = range(len(self))[index]
        made: Array = self._read(range(number, number + 1), slice(None))[0]
        return made

    def row(self, row: int) -> Array:
        """Return every recorded step of a row by its id in the vocabulary: float32[steps, width] (p_dead: [steps]).

        Raises InputError for one that is not recorded.
        """
        at = int(np.searchsorted(self.record.rows, row))
        if self.name == "h_mean" or at == len(self.record.rows) or self.record.rows[at] != row:
            raise InputError(f"row {row} of {self.name} is not in {self.record.place.path}")
        return self._read(range(len(self)), slice(at, at + 1))[:, 0]

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (number of the first step, values) of consecutive steps, at most BLOCK at a time, read ahead."""
        end = len(self) if stop is None else min(stop, len(self))
        positions = self.record.positions[start:end]
        cuts = np.flatnonzero((positions[1:] // BLOCK != positions[:-1] // BLOCK) | (np.diff(positions) != 1)) + 1
        bounds = [start, *(int(cut) + start for cut in cuts), end] if len(positions) else []
        spans = [range(first, last) for first, last in itertools.pairwise(bounds)]
        return prefetch((span.start, self._read(span, slice(None))) for span in spans)

    def _read(self, numbers: range, rows: slice) -> Array:
        """Return consecutive steps of some rows."""
        record, parts = self.record, [self._empty(rows)]
        positions, shard = record.positions[numbers.start : numbers.stop], record.layout.shard
        cuts = np.flatnonzero((positions[1:] // shard != positions[:-1] // shard) | (np.diff(positions) != 1)) + 1
        for run in np.split(positions, cuts) if len(positions) else ():
            number, first = divmod(int(run[0]), shard)
            steps = slice(first, first + len(run))
            if self.name in record.layout.vectors:
                parts.append(record.vectors(self.name, number)[steps, rows if self.name != "h_mean" else slice(None)])
            else:
                parts.append(record.part(self.name, number, steps, rows))
        made = parts[1] if len(parts) == 2 else np.concatenate(parts)
        if self.as_bits:
            return bf16_bits(made) if made.dtype == np.float32 else made
        return widened(made) if made.dtype == np.uint16 else made

    def _empty(self, rows: slice) -> Array:
        layout = self.record.layout
        first, end, _ = rows.indices(layout.rows)
        shape: tuple[int, ...] = (0, end - first, layout.width)
        if self.name in layout.vectors:
            shape = (0, layout.width) if self.name == "h_mean" else (0, end - first)
        narrow = self.name in layout.codings and itemsize(layout.codings[self.name]) == 2
        return np.empty(shape, np.uint16 if narrow else np.float32)


def _planes(path: Path, content: bytes, shape: tuple[int, ...]) -> list[npt.NDArray[np.uint8]]:
    try:
        return unpack(content, shape[1:], shape[0])
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({error})") from error


def _steps(place: Place, layout: Layout, *, around: bool) -> npt.NDArray[np.int64]:
    """Return the steps recorded by their place in the files; -1 for those of a missing file, which `around` allows."""
    numbers = sorted(int(path.name[2:]) for path in (place.path / STEPS).glob("c.*") if path.name[2:].isdecimal())
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
