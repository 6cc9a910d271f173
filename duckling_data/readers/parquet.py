"""Parquet files as blocks: runs of small row groups side by side, large row groups streamed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from duckling_data.errors import InputError
from duckling_data.parallel import prefetch
from duckling_data.readers.blocks import BLOCK_BYTES, Block, decompressed, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_STORIES = 4096
"""Stories in a block of a Parquet file whose row groups are too large to read whole."""

ROW_GROUP_LIMIT = 64 << 20
"""Row groups up to this many (decoded) bytes are read whole, side by side; larger ones are streamed."""


@contextlib.contextmanager
def _open_parquet(path: Path, codec: str | None, metadata: object = None) -> Iterator[Any]:
    """Open a Parquet file (unpacked into an anonymous temporary file first, if compressed as a whole)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        source: str | IO[bytes] = str(path)
        if codec:
            source = stack.enter_context(tempfile.TemporaryFile())
            for data in decompressed(path, codec, BLOCK_BYTES):
                source.write(data)
        try:
            file = pq.ParquetFile(source, metadata=metadata, pre_buffer=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise unreadable(path, error) from error
        stack.callback(file.close)
        yield file


def count_rows(path: Path, codec: str | None, text_field: str) -> int:
    """Return the number of rows by the file's own metadata; the text column is checked on the way."""
    with _open_parquet(path, codec) as file:
        _check_text_column(file.schema_arrow, path, text_field)
        return int(file.metadata.num_rows)


def parquet_blocks(path: Path, codec: str | None, text_field: str, block_bytes: int) -> Iterator[Block]:
    """Yield the file's blocks in row order. Raises InputError where there is no text column of strings."""
    with _open_parquet(path, codec) as file:
        _check_text_column(file.schema_arrow, path, text_field)
        sizes = [file.metadata.row_group(g).total_byte_size for g in range(file.num_row_groups)]
        if codec or max(sizes, default=0) > ROW_GROUP_LIMIT:
            yield from _streamed_blocks(file, path, text_field)
            return
        metadata = file.metadata
    first_row = 0
    for groups in _runs(sizes, block_bytes):
        rows = sum(metadata.row_group(group).num_rows for group in groups)
        yield Block(rows, partial(_read_row_groups, path, metadata, groups, text_field, first_row))
        first_row += rows


def _runs(sizes: list[int], block_bytes: int) -> Iterator[list[int]]:
    """Cut the row groups into runs of about block_bytes."""
    run: list[int] = []
    total = 0
    for group, size in enumerate(sizes):
        run.append(group)
        total += size
        if total >= block_bytes:
            yield run
            run, total = [], 0
    if run:
        yield run


def _streamed_blocks(file: Any, path: Path, text_field: str) -> Iterator[Block]:
    import pyarrow as pa

    batches = file.iter_batches(batch_size=BATCH_STORIES, columns=[text_field], use_threads=False)
    first_row = 0
    try:
        for batch in prefetch(batches):
            yield Block(batch.num_rows, partial(_large_strings, batch.column(0), path, first_row))
            first_row += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error


def _read_row_groups(path: Path, metadata: Any, groups: list[int], text_field: str, first_row: int) -> pa.Array:
    import pyarrow as pa

    with _open_parquet(path, None, metadata) as file:
        try:
            table = file.read_row_groups(groups, columns=[text_field], use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise unreadable(path, error) from error
    return _large_strings(table.column(0).combine_chunks(), path, first_row)


def _check_text_column(schema: pa.Schema, path: Path, text_field: str) -> None:
    import pyarrow.types as types

    if text_field not in schema.names:
        raise InputError(
            f"{path}: no column {text_field!r}; it has {', '.join(map(repr, schema.names)) or 'none'}. "
            "Name the one that holds the stories with --text-field."
        )
    found = schema.field(text_field).type
    held = found.value_type if types.is_dictionary(found) else found
    if not (types.is_string(held) or types.is_large_string(held) or types.is_string_view(held) or types.is_null(held)):
        raise InputError(f"{path}: column {text_field!r} holds {found}, expected text (string).")


def _large_strings(column: pa.Array, path: Path, first_row: int) -> pa.Array:
    """Return the column as large_string. Raises InputError at the first byte that is not UTF-8."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    texts = column.cast(pa.large_string())
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as invalid:
        for row, story in enumerate(texts.cast(pa.large_binary()).to_pylist()):
            try:
                (story or b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}: not UTF-8 in row {first_row + row:,} at byte offset {error.start:,} of its text "
                    f"(byte 0x{story[error.start]:02x}). Repair the file, or convert it to UTF-8."
                ) from invalid
        raise
    return texts
