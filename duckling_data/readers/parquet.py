"""Parquet files as blocks: runs of small row groups side by side, large row groups streamed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from duckling_data.errors import InputError
from duckling_data.files import disk_errors, open_regular
from duckling_data.parallel import prefetch
from duckling_data.readers.blocks import BLOCK_BYTES, Block, decompressed, refusing, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_STORIES = 4096
"""Stories in a block of a Parquet file whose row groups are too large to read whole."""

ROW_GROUP_LIMIT = 64 << 20
"""Row groups up to this many (decoded) bytes are read whole, side by side; larger ones are streamed."""

NAMES_SHOWN = 8
"""Columns that an error names, at most."""

UNPACK_FACTOR, UNPACK_LEAST = 50, 64 << 20
"""A file compressed as a whole may unpack to so many times its size, and so many bytes more: Parquet is dense."""


@contextlib.contextmanager
def _open_parquet(path: Path, codec: str | None, metadata: object = None) -> Iterator[Any]:
    """Open a Parquet file (unpacked into an anonymous temporary file first, if compressed as a whole)."""
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        source: str | IO[bytes] = str(path)
        if codec:
            source = stack.enter_context(tempfile.TemporaryFile())
            _unpack(path, codec, source)
        with refusing(path):
            open_regular(path).close()
            file = pq.ParquetFile(source, metadata=metadata, pre_buffer=False)
        stack.callback(file.close)
        yield file


def _unpack(path: Path, codec: str, place: IO[bytes]) -> None:
    limit = UNPACK_LEAST + UNPACK_FACTOR * path.stat().st_size
    for data in decompressed(path, codec, BLOCK_BYTES):
        if place.tell() + len(data) > limit:
            raise InputError(f"{path}: unpacks to more than {limit:,} bytes, too much for a Parquet file of its size.")
        with disk_errors(path):
            place.write(data)


def count_rows(path: Path, codec: str | None, text_field: str) -> int:
    """Return the number of rows by the file's own metadata; the text column is checked on the way."""
    with _open_parquet(path, codec) as file, refusing(path):
        _check_text_column(file.schema_arrow, path, text_field)
        return sum(_group_sizes(file.metadata)[0])


def parquet_blocks(path: Path, codec: str | None, text_field: str, block_bytes: int) -> Iterator[Block]:
    """Yield the file's blocks in row order. Raises InputError where there is no text column of strings."""
    with _open_parquet(path, codec) as file:
        with refusing(path):
            _check_text_column(file.schema_arrow, path, text_field)
            counts, sizes = _group_sizes(file.metadata)
        if codec or max(sizes, default=0) > ROW_GROUP_LIMIT:
            yield from _streamed_blocks(file, path, text_field)
            return
        metadata = file.metadata
    first_row = 0
    for groups in _runs(sizes, block_bytes):
        rows = sum(counts[group] for group in groups)
        yield Block(rows, partial(_read_row_groups, path, metadata, groups, text_field, first_row, rows))
        first_row += rows


def _group_sizes(metadata: Any) -> tuple[list[int], list[int]]:
    """Return the rows and the decoded bytes of each row group. Raises ValueError where the file's sums disagree."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    counts, sizes = [int(group.num_rows) for group in groups], [int(group.total_byte_size) for group in groups]
    if min(counts, default=0) < 0 or min(sizes, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise ValueError(f"its row groups have {sum(counts)} rows in all, the file says {metadata.num_rows}")
    return counts, sizes


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
    first_row = 0
    with refusing(path):
        batches = file.iter_batches(batch_size=BATCH_STORIES, columns=[text_field], use_threads=False)
        for batch in prefetch(batches):
            yield Block(batch.num_rows, partial(_large_strings, batch.column(0), path, first_row))
            first_row += batch.num_rows


def _read_row_groups(
    path: Path, metadata: Any, groups: list[int], text_field: str, first_row: int, rows: int
) -> pa.Array:
    with _open_parquet(path, None, metadata) as file, refusing(path):
        table = file.read_row_groups(groups, columns=[text_field], use_threads=False)
        if table.num_rows != rows:
            raise ValueError(f"{table.num_rows} rows where its metadata says {rows}")
        column = table.column(0).combine_chunks()
    return _large_strings(column, path, first_row)


def _check_text_column(schema: pa.Schema, path: Path, text_field: str) -> None:
    import pyarrow.types as types

    if text_field not in schema.names:
        raise InputError(
            f"{path}: no column {text_field!r}; it has {_shown(schema.names)}. "
            "Name the one that holds the stories with --text-field."
        )
    if schema.names.count(text_field) > 1:
        raise InputError(f"{path}: {schema.names.count(text_field)} columns are named {text_field!r}, expected one.")
    found = schema.field(text_field).type
    held = found.value_type if types.is_dictionary(found) else found
    if not (types.is_string(held) or types.is_large_string(held) or types.is_string_view(held) or types.is_null(held)):
        raise InputError(f"{path}: column {text_field!r} holds {str(found)[:80]}, expected text (string).")


def _shown(names: list[str]) -> str:
    shown = [repr(name if len(name) <= 60 else name[:57] + "...") for name in names[:NAMES_SHOWN]]
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return (", ".join(shown) or "none") + more


def _large_strings(column: pa.Array, path: Path, first_row: int) -> pa.Array:
    """Return the column as large_string. Raises InputError at the first byte that is not UTF-8."""
    import pyarrow as pa
    import pyarrow.types as types

    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    with refusing(path):
        # The cast would follow offsets and indices that lead out of the data.
        column.validate(full=types.is_dictionary(column.type))
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
        raise unreadable(path, invalid) from invalid
    return texts
