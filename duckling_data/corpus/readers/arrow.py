"""Arrow files as blocks: a stream, as `save_to_disk` of datasets writes it, or the file format, which holds one.

A file is mapped, so no claim in it takes memory. A compressed one is refused before it is unpacked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular
from duckling_data.corpus.readers.blocks import Block, refusing
from duckling_data.corpus.readers.parquet import (
    BATCH_STORIES,
    TEXT_FACTOR,
    TEXT_LEAST,
    check_text_column,
    large_strings,
)
from duckling_data.rows.read import is_compressed, shard_paths

MAGIC = b"ARROW1\0\0"
"""The file format begins with it; a stream follows, and behind that a table of contents, which is not needed."""

END = b"\xff\xff\xff\xff\0\0\0\0"


def saved_shards(folder: Path) -> list[Path] | None:
    """Return the files that hold the rows of a `save_to_disk` folder, in order; None for another kind of folder.

    Raises InputError for a folder of several splits, and for one that is damaged.
    """
    if (folder / "dataset_dict.json").is_file():
        raise InputError(
            f"{folder}: holds several splits, expected one; name one, --source {folder / 'train'}, and another "
            "with --validation."
        )
    if not (folder / "state.json").is_file() or not (folder / "dataset_info.json").is_file():
        return None
    return shard_paths(folder, "save the data set again")


def arrow_blocks(path: Path, text_field: str, block_bytes: int) -> Iterator[Block]:
    """Yield the file's blocks in row order. Raises InputError where there is no text column of strings."""
    limit = TEXT_LEAST + TEXT_FACTOR * path.stat().st_size
    first_row = read = 0
    for column in _columns(path, text_field):
        with refusing(path):
            ends = np.cumsum(_lengths(column))
        if len(ends) and read + ends[-1] > limit:
            raise InputError(f"{path}: its text is more than {limit:,} bytes, out of all proportion to its size.")
        read += int(ends[-1]) if len(ends) else 0
        start = 0
        while start < len(column):
            before = int(ends[start - 1]) if start else 0
            fitting = int(np.searchsorted(ends, before + block_bytes, "right"))
            stop = min(max(fitting, start + 1), start + BATCH_STORIES)
            yield Block(stop - start, partial(large_strings, column[start:stop], path, first_row + start))
            start = stop
        first_row += len(column)


def _columns(path: Path, text_field: str) -> Iterator[pa.Array]:
    """Yield the text column of each record batch: whole, and no bytes in it out of bounds."""
    with refusing(path):
        open_regular(path).close()
        whole = pa.memory_map(str(path))
        start = len(MAGIC) if whole.read(len(MAGIC)) == MAGIC else 0
        whole.seek(start)
        try:
            compressed = any(is_compressed(message) for message in pa.ipc.MessageReader.open_stream(whole))
        except struct.error as error:
            raise ValueError("a message that is not whole") from error
        if compressed:
            raise InputError(f"{path}: compressed inside, expected plain batches. Write it so, or as Parquet.")
        _check_end(whole, stream=start == 0)
        whole.seek(start)
        schema = pa.ipc.open_stream(whole).schema
        check_text_column(schema, path, text_field)
        index = schema.get_field_index(text_field)
        found = schema.field(index).type
        if types.is_null(found) or (types.is_dictionary(found) and types.is_string_view(found.value_type)):
            raise InputError(f"{path}: column {text_field!r} holds {found}, expected text (string).")
        whole.seek(start)
        options = pa.ipc.IpcReadOptions(included_fields=[index], use_threads=False)
        for batch in pa.ipc.open_stream(whole, options=options):
            column = batch.column(0)
            kinds = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}  # UTF-8 is checked later
            column.view(kinds.get(column.type, column.type)).validate(full=True)
            yield _without_null_views(column) if types.is_string_view(column.type) else column


def _without_null_views(column: pa.Array) -> pa.Array:
    """Return views whose nulls lead nowhere: validation leaves them out, and casting follows them."""
    if column.null_count == 0:
        return column
    _, views, *data = column.buffers()
    cleaned = np.frombuffer(views, np.int32).reshape(-1, 4)[column.offset : column.offset + len(column)].copy()
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    cleaned[nulls] = 0
    bits = pa.py_buffer(np.packbits(~nulls, bitorder="little").tobytes())
    return pa.Array.from_buffers(column.type, len(column), [bits, pa.py_buffer(cleaned), *data])


def _check_end(whole: Any, *, stream: bool) -> None:
    """Raise ValueError unless the messages read end with the mark of the end, and a stream's file with it."""
    end = whole.tell()
    whole.seek(max(0, end - len(END)))
    if whole.read(len(END)) != END:
        raise ValueError("the mark of its end is missing")
    if stream and end != whole.size():
        raise ValueError("more behind the end of its stream")


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the bytes of each story, 0 where it is null. A value may stand in many rows of a dictionary or view."""
    lengths: Any
    if types.is_dictionary(column.type):
        values = _lengths(column.dictionary)
        indices = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        lengths = values[indices] if len(values) else np.zeros(len(column), np.int64)
    elif types.is_string_view(column.type):
        views = np.frombuffer(column.buffers()[1] or b"", np.int32).reshape(-1, 4)
        lengths = views[column.offset : column.offset + len(column), 0].astype(np.int64)
    else:
        lengths = pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    positive: npt.NDArray[np.int64] = np.maximum(lengths, 0)
    return positive
