"""Reads a dataset directory, which may come from anywhere, as arrays.

Nothing in it is run, no name leads out of it, and a shard's rows are mapped, so no claim in it takes memory.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular
from duckling_data.base.progress import nothing
from duckling_data.base.records import read_record
from duckling_data.rows.layout import (
    COLUMN,
    MAX_VOCAB,
    NARROW_VOCAB,
    POSITION,
    ROWS_PER_SHARD,
    Positions,
    TokenIds,
    row_dtype,
)

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T", bound=np.unsignedinteger[Any])

AGAIN = "run duckling-data pack"
"""What to do about a directory that cannot be read."""


class Column(Generic[T]):
    """A column of rows: `column[i]` is a view of shape (ctx,), `column[a:b]` a copy (n, ctx)."""

    def __init__(self, chunks: Sequence[npt.NDArray[T]]) -> None:
        """`chunks` hold the rows in order, each of shape (rows, ctx)."""
        self.chunks: list[npt.NDArray[T]] = list(chunks)
        self._ends = np.cumsum([0, *map(len, chunks)])[1:]

    @property
    def ctx(self) -> int:
        """Tokens in a row; 0 where there are no rows."""
        return self.chunks[0].shape[1] if self.chunks else 0

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The values' type; uint16 where there are no rows."""
        return self.chunks[0].dtype if self.chunks else row_dtype(0)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[T]: ...
    @overload
    def __getitem__(self, index: slice) -> npt.NDArray[T]: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[T]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"rows are sliced with step {step}; expected 1")
            return self.between(start, stop)
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, row, side="right"))
        row_of: npt.NDArray[T] = self.chunks[number][row - int(self._ends[number])]
        return row_of

    def __iter__(self) -> Iterator[npt.NDArray[T]]:
        for chunk in self.chunks:
            yield from chunk

    def between(self, start: int, stop: int) -> npt.NDArray[T]:
        """Return the rows from `start` to `stop`, as many of them as there are: shape (n, ctx)."""
        parts: list[npt.NDArray[Any]] = [np.empty((0, self.ctx), self.dtype)]
        for chunk, end in zip(self.chunks, self._ends.tolist(), strict=True):
            first = end - len(chunk)
            if first < stop and end > start:
                parts.append(chunk[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def payload_sha256(self, done: Callable[[int], object] = nothing) -> str:
        """Return the SHA-256 of the values, little-endian, in order; `done` is told how many rows were read."""
        payload = hashlib.sha256()
        for chunk in self.chunks:
            payload.update(np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<")).data)
            done(len(chunk))
        return payload.hexdigest()


class Rows(Column[np.unsignedinteger[Any]]):
    """Rows of token ids, in memory or memory-mapped: `rows[i]` is a view of shape (ctx,), `rows[a:b]` a copy (n, ctx).

    >>> rows = open_rows("artifacts/tokenized_dataset")
    >>> rows[0].dtype, rows[0].shape, rows[:3].shape
    (dtype('uint16'), (512,), (3, 512))
    """

    def __init__(self, chunks: Sequence[TokenIds], positions: Column[np.uint32] | None = None) -> None:
        """`chunks` hold the rows in order, each of shape (rows, ctx); `positions` as many rows."""
        super().__init__(chunks)
        self.positions = positions
        """Each token's index in its own story (`pack --positions`), or None where they are not stored."""

    def max_id(self, done: Callable[[int], object] = nothing) -> int:
        """Return the largest id of all rows, or -1 where there are none. Reads them all; `done` as above."""
        largest = -1
        for chunk in self.chunks:
            largest = max(largest, int(chunk.max()))
            done(len(chunk))
        return largest

    def occurrences(self, done: Callable[[int], object] = nothing) -> npt.NDArray[np.int64]:
        """Return how often each id occurs, for every id that there may be: int64[65536] for uint16, [2**20] for uint32.

        `done` as above. Raises InputError for an id beyond that.
        """
        found = np.zeros(NARROW_VOCAB if self.dtype == np.uint16 else MAX_VOCAB, np.int64)
        for chunk in self.chunks:
            for start in range(0, len(chunk), 8192):  # in pieces: numpy counts integers of 8 bytes
                part = chunk[start : start + 8192].reshape(-1)
                if (highest := int(part.max())) >= len(found):
                    raise InputError(f"the rows hold the id {highest:,}, expected ids below {len(found):,}; {AGAIN}")
                found += np.bincount(part, minlength=len(found))
            done(len(chunk))
        return found


class StoredRows(Rows):
    """The rows of a dataset directory, with the names of their files. Raises InputError as `open_rows` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(*_columns(shard_paths(folder)))
        self.name = folder.name

    def where(self, row: int) -> str:
        """Return a row's file and number, for a person; the number is the row's in the whole dataset."""
        shards = max(1, -(-len(self) // ROWS_PER_SHARD))
        return f"{self.name}/data-{row // ROWS_PER_SHARD:05d}-of-{shards:05d}.arrow row {row:,}"

    def difference(self, start: int, expected: TokenIds, positions: Positions | None = None) -> str | None:
        """Return where the rows from `start` on, or their tokens' positions, are not the `expected` ones, or None."""
        count = len(self.between(start, start + len(expected)))
        fault = self._difference("", self, start, expected[:count]) if count else None
        if fault is None and count and self.positions is not None and positions is not None:
            fault = self._difference("position ", self.positions, start, positions[:count])
        if fault is None and count < len(expected):
            return f"{self.where(start + count)} is missing, expected one that begins with {expected[count, 0]}"
        return fault

    def _difference(self, what: str, column: Column[T], start: int, expected: npt.NDArray[T]) -> str | None:
        found = column.between(start, start + len(expected))
        if found.shape[1] != expected.shape[1]:
            return f"{self.where(start)} has {found.shape[1]} tokens, expected {expected.shape[1]}"
        for row, at in np.argwhere(found != expected)[:1].tolist():
            values = f"found {what}{found[row, at]}, expected {expected[row, at]}"
            return f"{self.where(start + row)} column {at}: {values}"
        return None


def open_rows(folder: str | os.PathLike[str]) -> Rows:
    """Return the rows of a dataset directory, memory-mapped: each shard is found whole, no token is read yet.

    Raises InputError for a directory that is missing, damaged, or holds something else.

    >>> len(open_rows("artifacts/tokenized_dataset")) > 0
    True
    """
    return Rows(*_columns(shard_paths(Path(folder))))


def read_rows(folder: Path) -> list[TokenIds]:
    """Return the rows of each batch, memory-mapped, each of shape (rows, ctx). Raises InputError as `open_rows`."""
    return _columns(shard_paths(folder))[0]


def count_rows(folder: Path, done: Callable[[int], object] = nothing) -> npt.NDArray[np.int64]:
    """Return `Rows.occurrences` of a dataset directory, one file in memory after the other. Raises as `open_rows`."""
    open_rows(folder)  # that all files fit together
    each = [Rows(*_columns([path])).occurrences(done) for path in shard_paths(folder)]
    counted: npt.NDArray[np.int64] = np.sum(each, axis=0)
    return counted


def _columns(paths: Sequence[Path]) -> tuple[list[TokenIds], Column[np.uint32] | None]:
    """Return the ids of each batch of these files, and the positions, if there are any."""
    tables = {path: _read_shard(path) for path in paths}
    for path, table in tables.items():
        if table.column_names != (first := next(iter(tables.values()))).column_names:
            raise InputError(f"{path}: it holds {table.column_names}, the first shard {first.column_names}; {AGAIN}")
        if table.schema.types != first.schema.types:
            kinds = (str(shard.schema.types[0])[:60] for shard in (table, first))
            raise InputError(f"{path}: it holds {', the first shard '.join(kinds)}; {AGAIN}")
    ids, positions = (
        [
            chunk.flatten().to_numpy(zero_copy_only=True).reshape(len(chunk), -1)
            for table in tables.values()
            for chunk in (table.column(name).chunks if name in table.column_names else ())
            if len(chunk)
        ]
        for name in (COLUMN, POSITION)
    )
    return ids, Column(positions) if positions else None


class _File(msgspec.Struct):
    filename: str


class _State(msgspec.Struct):
    files: list[_File] = msgspec.field(name="_data_files")


def shard_paths(folder: Path, advice: str = AGAIN) -> list[Path]:
    """Return the files with the rows of a dataset directory, in order. Raises InputError for a damaged directory."""
    state = folder / "state.json"
    paths = [folder / file.filename for file in read_record(state, _State, advice).files]
    inside = Path(os.path.realpath(folder))
    for path in paths:
        if "\0" in path.name or Path(os.path.realpath(path)).parent != inside:
            raise InputError(f"{path}: leads out of {folder}; expected a file in it; copy the file there.")
    if len(set(paths)) < len(paths):
        raise InputError(f"{state}: names a shard more than once; {advice}")
    return paths


def _read_shard(path: Path) -> pa.Table:
    """Return a shard's columns. Raises InputError for a shard that is not whole or not of this layout."""
    import pyarrow as pa

    try:
        open_regular(path).close()
        with pa.memory_map(str(path)) as whole:
            for message in pa.ipc.MessageReader.open_stream(whole):
                if is_compressed(message):
                    raise ValueError("it is compressed, which rows of tokens never are")
        reader = pa.ipc.open_stream(pa.memory_map(str(path)))
        _check_layout(reader.schema)
        table = reader.read_all()
        table.validate()
        if any(chunk.null_count or chunk.flatten().null_count for column in table.columns for chunk in column.chunks):
            raise ValueError("it has nulls instead of tokens")
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError, OverflowError, MemoryError) as error:
        reason = f"{error}".partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: {reason}; {AGAIN}") from error
    return table


def is_compressed(message: pa.Message) -> bool:
    """Return whether a message's metadata, a flatbuffer, names a compression: its size would be unbounded."""
    if message.type not in ("record batch", "dictionary"):
        return False
    metadata = message.metadata.to_pybytes()
    batch = _table(metadata, _field(metadata, _table(metadata, 0), 2))
    if message.type == "dictionary":
        batch = _table(metadata, _field(metadata, batch, 1))
    return _field(metadata, batch, 3) > 0


def _table(metadata: bytes, offset: int) -> int:
    """Return where a flatbuffer table is that is referred to at an offset."""
    place: int = offset + struct.unpack_from("<I", metadata, offset)[0]
    return place


def _field(metadata: bytes, table: int, number: int) -> int:
    """Return the offset of a flatbuffer table's field, or 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    size = struct.unpack_from("<H", metadata, vtable)[0]
    entry = 4 + 2 * number
    offset: int = struct.unpack_from("<H", metadata, vtable + entry)[0] if entry < size else 0
    return table + offset if offset else 0


def _check_layout(found: pa.Schema) -> None:
    import pyarrow as pa

    kinds = {COLUMN: ["uint16", "uint32"]} | ({POSITION: ["uint32"]} if POSITION in found.names else {})
    fits = found.names == list(kinds) and all(
        pa.types.is_fixed_size_list(kind)
        and str(kind.value_type) in allowed
        and kind.list_size == found.types[0].list_size > 0
        for kind, allowed in zip(found.types, kinds.values(), strict=True)
    )
    if not fits:
        columns = ", ".join(f"{name[:20]} of {str(found.field(i).type)[:60]}" for i, name in enumerate(found.names[:4]))
        expected = " and ".join(f"{name!r} of fixed_size_list<{' or '.join(kind)}>" for name, kind in kinds.items())
        raise ValueError(f"it holds {columns!r}, expected {expected}")
