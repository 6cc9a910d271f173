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
from duckling_train.recording.codec import BLOCK, Array, bf16_bits, itemsize, widened
from duckling_train.recording.layout import DEAD, ROWS, Layout, Place
from duckling_train.recording.parts import Parts, read_steps


@dataclass(frozen=True)
class Record:
    """A run's record.

    >>> tracker = duckling_ii("artifacts").train(2, run="recorded", record="dead")
    >>> record = open_run("recorded").record
    >>> record.steps[:3], record.W[0].shape
    (array([0, 1, 2]), (2048, 128))
    """

    parts: Parts = field(repr=False)
    """Its files."""
    steps: npt.NDArray[np.int64]
    """The optimizer steps recorded, rising; 0 is the first."""
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
        steps = read_steps(place, layout, around=around)
        parts = Parts(place, layout, rows.astype(np.int64))
        record = cls(parts, steps, dead.astype(np.bool_), np.flatnonzero(steps >= 0))
        bad = {number for number, _ in record.faults()} if around else set()
        there = np.array([number for number in record.positions if number // layout.shard not in bad], np.int64)
        return replace(record, steps=steps[there], positions=there)

    @property
    def path(self) -> Path:
        """The record's directory."""
        return self.parts.place.path

    @property
    def layout(self) -> Layout:
        """How it is laid out."""
        return self.parts.layout

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The vocabulary's rows recorded, rising."""
        return self.parts.rows

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
            raise InputError(f"{self.path} has no {name}; it has {', '.join(self.tensors)}")
        return Series(self, name)

    def faults(self) -> Iterator[tuple[int, str]]:
        """Yield (shard, fault) of every shard that is missing or damaged: all of it is read."""
        for shard in sorted({int(position) // self.layout.shard for position in self.positions}):
            for name in self.tensors:
                try:
                    if name in self.layout.vectors:
                        self.parts.vectors(name, shard)
                    else:
                        self._check(name, shard)
                except Damaged as error:
                    yield shard, str(error)

    def _check(self, name: str, shard: int) -> None:
        """Read a matrix of a shard. Raises Damaged."""
        held = self.positions[self.positions // self.layout.shard == shard] % self.layout.shard
        self.parts.part(name, shard, slice(0, int(held.max()) + 1), slice(None), only_read=True)


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
            raise InputError(f"row {row} of {self.name} is not in {self.record.path}")
        if self.name in self.record.layout.codings and len(self):
            return self._converted(self.record.parts.row(self.name, at, self.record.positions))
        return self._read(range(len(self)), slice(at, at + 1))[:, 0]

    def blocks(self, start: int = 0, stop: int | None = None, rows: slice = slice(None)) -> Iterator[tuple[int, Array]]:
        """Yield (number of the first step, values) of consecutive steps, at most BLOCK at a time, read ahead.

        `rows` are those of `record.rows` that are decoded.
        """
        end = len(self) if stop is None else min(stop, len(self))
        positions = self.record.positions[start:end]
        cuts = np.flatnonzero((positions[1:] // BLOCK != positions[:-1] // BLOCK) | (np.diff(positions) != 1)) + 1
        bounds = [start, *(int(cut) + start for cut in cuts), end] if len(positions) else []
        spans = [range(first, last) for first, last in itertools.pairwise(bounds)]
        return prefetch((span.start, self._read(span, rows)) for span in spans)

    def _read(self, numbers: range, rows: slice) -> Array:
        """Return consecutive steps of some rows."""
        record, parts = self.record, [self._empty(rows)]
        positions, shard = record.positions[numbers.start : numbers.stop], record.layout.shard
        cuts = np.flatnonzero((positions[1:] // shard != positions[:-1] // shard) | (np.diff(positions) != 1)) + 1
        for run in np.split(positions, cuts) if len(positions) else ():
            number, first = divmod(int(run[0]), shard)
            steps = slice(first, first + len(run))
            if self.name in record.layout.vectors:
                parts.append(
                    record.parts.vectors(self.name, number)[steps, rows if self.name != "h_mean" else slice(None)]
                )
            else:
                parts.append(record.parts.part(self.name, number, steps, rows))
        return self._converted(parts[1] if len(parts) == 2 else np.concatenate(parts))

    def _converted(self, made: Array) -> Array:
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
