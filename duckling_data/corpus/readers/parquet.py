"""Parquet files as blocks: runs of small row groups side by side, large row groups streamed.

A value in a dictionary may be repeated in any number of rows for a few bits each, so what a file says of its size
bounds nothing. By the headers of its pages (`pages`) only so many rows are decoded at a time as fit a bound in any
case. A file whose text is out of all proportion to its size is refused.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from duckling_data.base.disk import check_room, disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.executor import prefetch
from duckling_data.base.files import open_regular, write_all
from duckling_data.base.records import short
from duckling_data.corpus.readers.blocks import BLOCK_BYTES, STORY_LIMIT, Block, decompressed, refusing, unreadable
from duckling_data.corpus.readers.pages import column_batches, rows_at_once

BATCH_STORIES = 4096
"""Stories in a block of a Parquet file whose row groups are too large to read whole."""
ROW_GROUP_LIMIT = 64 << 20
"""Row groups up to this many (decoded) bytes are read whole, side by side; larger ones are streamed."""
DENSE = 16
"""Row groups with fewer (decoded) bytes than this to a row repeat their stories, and are streamed."""
PIECE_BYTES = 64 << 20
"""Decoded text that is asked for at a time, at most: where a single story is not longer."""
GROUP_TEXT = 128 << 20
"""Decoded text of row groups that are read whole, at most, in bytes; a thread holds it about three times."""
TEXT_FACTOR, TEXT_LEAST = 1000, 64 << 20
"""A file that is streamed may decode to so many times its size, and so many bytes more."""
UNPACK_FACTOR, UNPACK_LEAST = 50, 64 << 20
"""A file compressed as a whole may unpack to so many times its size, and so many bytes more: Parquet is dense."""

OTHER_FOLDER = "name a folder on another disk with TMPDIR"


@contextlib.contextmanager
def _open_parquet(path: Path, codec: str | None, metadata: object = None) -> Iterator[tuple[Any, IO[bytes]]]:
    """Yield a Parquet file and its bytes (unpacked into an anonymous temporary file, if compressed as a whole)."""
    with contextlib.ExitStack() as stack:
        with refusing(path):
            content: IO[bytes] = stack.enter_context(open_regular(path))
        if codec:
            folder = Path(tempfile.gettempdir())
            # Parquet is compressed within: compressed again it is hardly smaller.
            check_room(folder, path.stat().st_size, f"the unpacked {path.name}", OTHER_FOLDER)
            with disk_errors(folder, OTHER_FOLDER):
                content = stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
            limit = UNPACK_LEAST + UNPACK_FACTOR * path.stat().st_size
            for data in decompressed(path, codec, BLOCK_BYTES):
                if content.tell() + len(data) > limit:
                    raise InputError(
                        f"{path}: unpacks to more than {limit:,} bytes, too much for a Parquet file of its size."
                    )
                with disk_errors(folder, OTHER_FOLDER):
                    write_all(content, data)
        with refusing(path):
            # As large_binary text is never read as a dictionary, which may grow by all values of a row group.
            source = content if codec else str(path)
            file = pq.ParquetFile(source, metadata=metadata, pre_buffer=False, binary_type=pa.large_binary())
        stack.callback(file.close)
        yield file, content


def count_rows(path: Path, codec: str | None, text_field: str) -> int:
    """Return the number of rows by the file's own metadata; the text column is checked on the way."""
    with _open_parquet(path, codec) as (file, _), refusing(path):
        check_text_column(file.schema_arrow, path, text_field)
        return sum(_group_sizes(file.metadata)[0])


def parquet_blocks(path: Path, codec: str | None, text_field: str, block_bytes: int) -> Iterator[Block]:
    """Yield the file's blocks in row order. Raises InputError where there is no text column of strings."""
    with _open_parquet(path, codec) as (file, content):
        with refusing(path):
            check_text_column(file.schema_arrow, path, text_field)
            metadata = file.metadata
            counts, sizes = _group_sizes(metadata)
        dense = any(size < DENSE * count for size, count in zip(sizes, counts, strict=True))
        if codec or dense or max(sizes, default=0) > ROW_GROUP_LIMIT:
            yield from _streamed_blocks(file, content, path, text_field)
            return
    first_row = first = size = 0
    for last, group_size in enumerate(sizes, 1):
        size += group_size
        if size >= block_bytes or last == len(sizes):
            groups, rows = range(first, last), sum(counts[first:last])
            yield Block(rows, partial(_read_row_groups, path, metadata, groups, text_field, first_row, rows))
            first, first_row, size = last, first_row + rows, 0


def _group_sizes(metadata: Any) -> tuple[list[int], list[int]]:
    """Return the rows and the decoded bytes of each row group. Raises ValueError where the file's sums disagree."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    counts, sizes = [int(group.num_rows) for group in groups], [int(group.total_byte_size) for group in groups]
    if min(counts, default=0) < 0 or min(sizes, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise ValueError(f"its row groups have {sum(counts)} rows in all, the file says {metadata.num_rows}")
    return counts, sizes


def _streamed_blocks(file: Any, content: IO[bytes], path: Path, text_field: str) -> Iterator[Block]:
    limit = TEXT_LEAST + TEXT_FACTOR * os.fstat(content.fileno()).st_size
    first_row = read = 0
    with refusing(path):
        pieces = _pieces(file, content, range(file.metadata.num_row_groups), text_field)
        for column in prefetch(_joined(pieces), depth=1):
            read += column.nbytes
            if read > limit:
                raise InputError(f"{path}: its text is more than {limit:,} bytes, out of all proportion to its size.")
            yield Block(len(column), partial(large_strings, column, path, first_row))
            first_row += len(column)


def _joined(pieces: Iterable[pa.Array]) -> Iterator[pa.Array]:
    """Join pieces until they have BATCH_STORIES rows or PIECE_BYTES bytes."""
    held: list[pa.Array] = []
    rows = size = 0
    for piece in pieces:
        held.append(piece)
        rows, size = rows + len(piece), size + piece.nbytes
        if rows >= BATCH_STORIES or size >= PIECE_BYTES:
            yield pa.concat_arrays(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_arrays(held)


def _read_row_groups(
    path: Path, metadata: Any, groups: Iterable[int], text_field: str, first_row: int, rows: int
) -> pa.Array:
    held: list[pa.Array] = []
    size = 0
    with _open_parquet(path, None, metadata) as (file, content), refusing(path):
        for piece in _pieces(file, content, groups, text_field, GROUP_TEXT):
            held.append(piece)
            size += piece.nbytes
            if size > GROUP_TEXT:
                raise InputError(
                    f"{path}: from row {first_row:,} on its row groups hold more than {GROUP_TEXT >> 20} MiB of text "
                    "in far fewer bytes. Write it with smaller row groups."
                )
        column = pa.concat_arrays(held) if held else pa.array([], pa.large_string())
        if len(column) != rows:
            raise ValueError(f"{len(column)} rows where its metadata says {rows}")
    return large_strings(column, path, first_row)


def _pieces(
    file: Any, content: IO[bytes], groups: Iterable[int], text_field: str, limit: int = PIECE_BYTES
) -> Iterator[pa.Array]:
    """Yield the text of these row groups, in pieces of BATCH_STORIES rows or `limit` bytes (see `rows_at_once`)."""
    column = _column_index(file, text_field)
    for group, rows in rows_at_once(content, file.metadata, groups, column, limit):
        size = min(rows, BATCH_STORIES)
        for batch in column_batches(file, size, group, column):
            yield batch.column(0)


def _column_index(file: Any, text_field: str) -> int:
    """Return the index of the flat column of that name; a field `b` of a struct `a` has the same path as one `a.b`."""
    columns = (file.schema.column(index) for index in range(len(file.schema)))
    return next(index for index, column in enumerate(columns) if column.name == column.path == text_field)


def check_text_column(schema: pa.Schema, path: Path, text_field: str) -> None:
    """Raise InputError unless there is one column of that name, and it holds strings."""
    if text_field not in schema.names:
        shown = ", ".join(map(short, schema.names[:8])) or "none"
        more = f" and {len(schema.names) - 8:,} more" if len(schema.names) > 8 else ""
        raise InputError(
            f"{path}: no column {text_field!r}; it has {shown}{more}. "
            "Name the one that holds the stories with --text-field."
        )
    if schema.names.count(text_field) > 1:
        raise InputError(f"{path}: {schema.names.count(text_field)} columns are named {text_field!r}, expected one.")
    found = schema.field(text_field).type
    held = found.value_type if types.is_dictionary(found) else found
    if not (types.is_string(held) or types.is_large_string(held) or types.is_string_view(held) or types.is_null(held)):
        raise InputError(f"{path}: column {text_field!r} holds {str(found)[:80]}, expected text (string).")


def large_strings(column: pa.Array, path: Path, first_row: int) -> pa.Array:
    """Return the column as large_string. Raises InputError at the first byte that is not UTF-8."""
    with refusing(path):
        column.validate()
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
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > STORY_LIMIT:
        raise InputError(
            f"{path}: a story of {longest:,} bytes behind row {first_row:,}, at most {STORY_LIMIT:,} are read. Cut it."
        )
    return texts
