"""Reads a dataset directory's shards, which may come from anywhere, as arrays.

Nothing in the directory is run, no name leads out of it, and what a shard claims is held against its size first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular
from duckling_data.base.strict_json import read_json
from duckling_data.rows.layout import COLUMN, TokenIds, row_type

if TYPE_CHECKING:
    import pyarrow as pa


def read_rows(folder: Path) -> list[TokenIds]:
    """Return the rows of each batch, memory-mapped: uint16, shape (rows, ctx), in the shards' order.

    Raises ValueError if the shards are not whole or not of this layout, InputError if `state.json` is not one.
    """
    shards = read_shards(folder, _check_layout)
    return [batch_rows(chunk) for table in shards for chunk in table.column(COLUMN).chunks if len(chunk)]


def batch_rows(chunk: Any) -> TokenIds:
    """Return a chunk of rows as a view: uint16, shape (rows, ctx). Raises ValueError where a row or token is null."""
    tokens: TokenIds = chunk.flatten().to_numpy(zero_copy_only=True)
    return tokens.reshape(len(chunk), chunk.type.list_size)


def read_shards(folder: Path, check: Callable[[pa.Schema], None]) -> list[pa.Table]:
    """Return the shards that `state.json` names, memory-mapped, each found whole; `check` sees each schema first.

    They may come from anywhere: nothing in the directory is run, no name leads out of it, and what a shard claims is
    held against its size before a byte of it is read. Raises ValueError that names a bad shard, InputError.
    """
    return [_read_shard(path, check) for path in _shard_paths(folder)]


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


def _read_shard(path: Path, check: Callable[[pa.Schema], None]) -> pa.Table:
    import pyarrow as pa

    try:
        open_regular(path).close()
        with pa.memory_map(str(path)) as whole:
            for message in pa.ipc.MessageReader.open_stream(whole):
                if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
                    raise ValueError("it is compressed, which rows of tokens never are")
        reader = pa.ipc.open_stream(pa.memory_map(str(path)))
        check(reader.schema)
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
    """Return where a flatbuffer table's field stands, or 0 where it is absent."""
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
        raise ValueError(f"it holds {', '.join(found.names)[:60]!r}, expected {COLUMN} of fixed_size_list<{ids}>")
