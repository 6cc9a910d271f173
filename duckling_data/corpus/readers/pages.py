"""The headers of a Parquet column's pages: how many of its rows may be decoded at a time.

pyarrow decodes by these headers, whatever the file's metadata says. They are read here because pyarrow has no limit for
a page: one of 2 GB compresses to some kilobytes, and is unpacked whole. Nor does `read_dictionary` bound memory: it
does not decode the DELTA encodings, and it keeps every value of a row group's plain pages.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

PAGE_LIMIT = 256 << 20
"""The largest page that is read, unpacked, in bytes. Writers make pages of 1 MB, 100 MB or 1,024 rows."""
LARGE_PAGE = 104 << 20
"""In larger pages, which pyarrow writes where stories have 128 KB on average, a row may take all of a page."""
DEPTH = 3
"""Structs inside each other in a page header: statistics in a data page's header in the page header."""

KIND, UNPACKED, PACKED, DATA, DATA_V2 = 1, 2, 3, 5, 8
"""Fields of a page header."""
VALUES, ENCODING, ENCODING_V2 = 1, 2, 4
"""Fields of DATA and DATA_V2."""
DICTIONARY_PAGE, DELTA_BYTE_ARRAY = 2, 7
"""A KIND; and the ENCODING in which a value gives how much it shares with the beginning of the one before it."""


class Page(NamedTuple):
    """What a page header says."""

    bytes: int
    """The page's size when it is unpacked."""
    values: int
    """Rows in it, nulls included."""
    repeats: bool
    """Whether a value may decode to more than it takes in the page: a dictionary, or values that share prefixes."""

    @property
    def row_bytes(self) -> int:
        """Bytes to which a row decodes: at most where values repeat or the page is large, else on average."""
        return self.bytes if self.repeats or self.bytes > LARGE_PAGE else self.bytes // max(1, self.values)


class _Recorder(io.FileIO):
    """A file that gives no bytes, and records which it was asked for."""

    asked: tuple[int, int] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Record (offset, size). Returns nothing."""
        self.asked = (self.tell(), size or 0)
        return b""


def rows_at_once(
    content: IO[bytes], metadata: Any, groups: Iterable[int], column: int, limit: int
) -> Iterator[tuple[int, int]]:
    """Yield (row group, rows): so many rows decode to at most `limit` bytes and two pages, or are a single story.

    Raises ValueError for pages that are not whole, or larger than PAGE_LIMIT; pyarrow's errors for damaged metadata.
    """
    recorder = _Recorder(content.fileno(), closefd=False)
    with pq.ParquetFile(recorder, metadata=metadata, pre_buffer=False) as file:
        for group in groups:
            start, size = _column_range(file, recorder, group, column)
            with open(content.fileno(), "rb", closefd=False) as headers:
                pages = list(read_pages(headers, start, size, metadata.row_group(group).num_rows))
            if max((page.bytes for page in pages), default=0) > PAGE_LIMIT:
                raise ValueError(f"a page of more than {PAGE_LIMIT >> 20} MiB")
            yield group, max(1, limit // max([1, *(page.row_bytes for page in pages)]))


def column_batches(file: Any, rows: int, group: int, column: int) -> Iterator[Any]:
    """Return an iterator over a row group's batches of so many rows, of the column with that index alone.

    `ParquetFile.iter_batches` takes names, and one name may stand for several columns.
    """
    batches: Iterator[Any] = file.reader.iter_batches(
        rows, row_groups=[group], column_indices=[column], use_threads=False
    )
    return batches


def _column_range(file: Any, recorder: _Recorder, group: int, column: int) -> tuple[int, int]:
    """Return (offset, size) of what pyarrow reads for a column of a row group.

    Not by `metadata.row_group(...).column(...)`: it ends the process at some damaged metadata.
    """
    recorder.asked = None
    try:
        next(column_batches(file, 1, group, column), None)
    except (pa.ArrowException, OSError):
        if recorder.asked is None:
            raise
    return recorder.asked or (0, 0)


def read_pages(content: IO[bytes], start: int, size: int, values: int) -> Iterator[Page]:
    """Yield the pages of the first `values` values of a column, which begins at byte `start` and has `size` bytes.

    Raises ValueError where a header is not whole, or the pages hold fewer values.
    """
    end = start + size
    while values > 0:
        content.seek(start)
        try:
            header = _struct(content)
        except IndexError:
            raise ValueError("a page header that is not whole") from None
        data = header.get(DATA) or header.get(DATA_V2) or {}
        if not isinstance(data, dict):
            raise ValueError(f"no page at byte {start}")
        counted = _size(data, VALUES) if data else 0
        start = content.tell() + _size(header, PACKED)
        if start > end:
            raise ValueError(f"its pages hold {values} rows fewer than its metadata says")
        delta = data.get(ENCODING if DATA in header else ENCODING_V2) == DELTA_BYTE_ARRAY
        yield Page(_size(header, UNPACKED), counted, delta or header.get(KIND) == DICTIONARY_PAGE)
        values -= counted


def _size(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"a page header with {value} as field {number}, expected a size")
    return value


def _struct(content: IO[bytes], depth: int = DEPTH) -> dict[int, Any]:
    """Return a struct's fields by number, in Thrift's compact protocol; bytes and truth values as None.

    Raises IndexError at the end of the file, ValueError for a kind of value that no page header has.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := content.read(1)[0]:
        number = number + (head >> 4) if head >> 4 else _signed(content)
        kind = head & 15
        value: Any = None
        if kind == 3:  # a byte
            value = content.read(1)[0]
        elif kind in (4, 5, 6):  # integers of 16, 32 and 64 bits
            value = _signed(content)
        elif kind == 8:  # bytes behind their number
            content.seek(_unsigned(content), io.SEEK_CUR)
        elif kind == 12 and depth > 1:
            value = _struct(content, depth - 1)
        elif kind not in (1, 2):  # true, false
            raise ValueError(f"a page header with a value of kind {kind}")
        fields[number] = value
    return fields


def _unsigned(content: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = content.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a page header with a number of more than 64 bits")


def _signed(content: IO[bytes]) -> int:
    value = _unsigned(content)
    return (value >> 1) ^ -(value & 1)
