"""Reads a dataset directory's shards, which may come from anywhere, as arrays.

Nothing in the directory is run, no name leads out of it, and what a shard claims is compared with its size first.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular
from duckling_data.base.strict_json import read_json
from duckling_data.rows.layout import COLUMN, TokenIds, row_dtype, row_type

if TYPE_CHECKING:
    import pyarrow as pa


class Rows:
    """Rows of token ids, in memory or memory-mapped: `rows[i]` is a view of shape (ctx,), `rows[a:b]` a copy (n, ctx).

    >>> rows = open_rows("artifacts/tokenized_dataset")
    >>> rows[0].dtype, rows[0].shape, rows[:3].shape
    (dtype('uint16'), (512,), (3, 512))
    """

    def __init__(self, chunks: Sequence[TokenIds]) -> None:
        """`chunks` hold the rows in order, each of shape (rows, ctx)."""
        self.chunks = list(chunks)
        self._ends = np.cumsum([len(chunk) for chunk in chunks], dtype=np.int64)

    @property
    def ctx(self) -> int:
        """Tokens in a row; 0 where there are no rows."""
        return self.chunks[0].shape[1] if self.chunks else 0

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> TokenIds: ...
    @overload
    def __getitem__(self, index: slice) -> TokenIds: ...
    def __getitem__(self, index: int | slice) -> TokenIds:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"rows are sliced with step {step}; expected 1")
            return self.between(start, stop)
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, row, side="right"))
        tokens: TokenIds = self.chunks[number][row - int(self._ends[number])]
        return tokens

    def __iter__(self) -> Iterator[TokenIds]:
        for chunk in self.chunks:
            yield from chunk

    def between(self, start: int, stop: int) -> TokenIds:
        """Return the rows from `start` to `stop`, as many of them as there are: shape (n, ctx)."""
        parts = [np.empty((0, self.ctx), row_dtype(0))]
        for chunk, end in zip(self.chunks, self._ends.tolist(), strict=True):
            first = end - len(chunk)
            if first < stop and end > start:
                parts.append(chunk[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def max_id(self) -> int:
        """Return the largest id of all rows, or -1 where there are none. Reads them all."""
        return max((int(chunk.max()) for chunk in self.chunks), default=-1)

    def payload_sha256(self) -> str:
        """Return the SHA-256 of the tokens, little-endian, in order. Reads all rows."""
        payload = hashlib.sha256()
        for chunk in self.chunks:
            payload.update(np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<")).data)
        return payload.hexdigest()


def open_rows(folder: str | os.PathLike[str]) -> Rows:
    """Return the rows of a dataset directory, memory-mapped: each shard is found whole, no token is read yet.

    Raises InputError for a directory that is missing, damaged, or holds something else.

    >>> len(open_rows("artifacts/tokenized_dataset")) > 0
    True
    """
    try:
        return Rows(read_rows(Path(folder)))
    except ValueError as error:
        raise InputError(f"cannot open {folder}: {error}; run duckling-data pack") from error


def read_rows(folder: Path) -> list[TokenIds]:
    """Return the rows of each batch, memory-mapped, of shape (rows, ctx), in the order of the shards.

    Raises ValueError, which names the shard, if one is not whole or not of this layout, InputError if `state.json` is
    not one.
    """
    shards = [_read_shard(path) for path in _shard_paths(folder)]
    return [_batch_rows(chunk) for table in shards for chunk in table.column(COLUMN).chunks if len(chunk)]


def _batch_rows(chunk: pa.FixedSizeListArray) -> TokenIds:
    tokens: TokenIds = chunk.flatten().to_numpy(zero_copy_only=True)
    return tokens.reshape(len(chunk), chunk.type.list_size)


def _shard_paths(folder: Path) -> list[Path]:
    state = read_json(folder / "state.json")
    entries = state.get("_data_files") if isinstance(state, dict) else None
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries or ()]
    plain = all(isinstance(name, str) and name not in ("", "..") and Path(name).name == name for name in names)
    if not isinstance(entries, list) or not plain or len(set(names)) < len(names):
        raise InputError(f"{folder / 'state.json'}: expected _data_files, a list of plain file names, each once.")
    paths = [folder / str(name) for name in names]
    for path in paths:
        if path.resolve().parent != folder.resolve():
            raise InputError(f"{path}: a link out of {folder}. Put the file that it leads to in its place.")
    return paths


def _read_shard(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        open_regular(path).close()
        with pa.memory_map(str(path)) as whole:
            for message in pa.ipc.MessageReader.open_stream(whole):
                if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
                    raise ValueError("it is compressed, which rows of tokens never are")
        reader = pa.ipc.open_stream(pa.memory_map(str(path)))
        _check_layout(reader.schema)
        table = reader.read_all()
        table.validate()
        if any(chunk.null_count or chunk.flatten().null_count for chunk in table.column(COLUMN).chunks):
            raise ValueError("it has nulls in the place of tokens")
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
    return table


def _is_compressed(metadata: bytes) -> bool:
    """Return whether a record batch's metadata, a flatbuffer, names a compression: its size would be unbounded."""
    message = struct.unpack_from("<I", metadata, 0)[0]
    header = _field(metadata, message, 2)
    batch = header + int(struct.unpack_from("<I", metadata, header)[0])
    return _field(metadata, batch, 3) > 0


def _field(metadata: bytes, table: int, number: int) -> int:
    """Return the offset of a flatbuffer table's field, or 0 where it is absent."""
    vtable = table - int(struct.unpack_from("<i", metadata, table)[0])
    size = int(struct.unpack_from("<H", metadata, vtable)[0])
    entry = 4 + 2 * number
    offset = int(struct.unpack_from("<H", metadata, vtable + entry)[0]) if entry < size else 0
    return table + offset if offset else 0


def _check_layout(found: pa.Schema) -> None:
    import pyarrow as pa

    ids = row_type(1).value_type
    kind = found.field(COLUMN).type if found.names == [COLUMN] else None
    if not (kind and pa.types.is_fixed_size_list(kind) and kind.value_type == ids and kind.list_size > 0):
        columns = ", ".join(f"{name[:20]} of {str(found.field(i).type)[:60]}" for i, name in enumerate(found.names[:4]))
        raise ValueError(f"it holds {columns!r}, expected {COLUMN!r} of fixed_size_list<{ids}>")
