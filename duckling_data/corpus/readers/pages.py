"""The headers of a Parquet file's pages: what the file cannot hide of how large its text may become.

A column of a row group is a run of pages, each behind a header in Thrift's compact protocol. The headers are what
pyarrow itself decodes by, so their sizes hold, whatever the file's metadata says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, TypeGuard

HEADER_BYTES, HEADER_LIMIT = 1 << 10, 16 << 20
"""Bytes that are read for a header at first, and the longest that there is (pyarrow reads no longer one either)."""

DEPTH = 8
"""Structs inside each other in a header, at most; there are three."""

KIND, UNPACKED, PACKED, DATA, DICTIONARY, DATA_V2 = 1, 2, 3, 5, 7, 8
"""Fields of a page's header; those of DATA and DATA_V2 follow."""
VALUES = 1
ENCODING, ENCODING_V2 = 2, 4

ROW_GROUPS, COLUMNS, COLUMN = 4, 1, 3
PATH, COLUMN_VALUES, COLUMN_BYTES, FIRST_DATA, FIRST_DICTIONARY = 3, 5, 7, 9, 11
"""Fields of the file's metadata, of a row group and of a column in it; the last are of COLUMN."""

TOO_DEEP = "metadata or a page header with structs too deep inside each other"

DICTIONARY_PAGE = 2
DELTA_BYTE_ARRAY = 7
"""The encoding in which a value says how much it shares with the begin of the one before it."""


@dataclass(frozen=True)
class Page:
    """What a page's header says."""

    bytes: int
    """Its size when it is unpacked."""
    dictionary: bool
    """Whether it holds values that data pages refer to."""
    shares_begins: bool
    """Whether its values may be longer than what stands for them."""


@dataclass(frozen=True)
class Chunk:
    """Where a column of a row group lies."""

    start: int
    bytes: int
    values: int


def read_chunks(content: IO[bytes], column: str) -> list[list[Chunk]]:
    """Return where the columns of that name lie, by row group. Raises ValueError for metadata that does not say so.

    Read here, for pyarrow's own accessors end the process at some damaged metadata.
    """
    end = content.seek(0, os.SEEK_END)
    content.seek(max(0, end - 8))
    length = int.from_bytes(content.read(4), "little")
    content.seek(max(0, end - 8 - length))
    try:
        groups = _Thrift(content.read(length)).struct()[ROW_GROUPS]
        columns = [[chunk[COLUMN] for chunk in group[COLUMNS]] for group in groups]
        return [[_chunk(found) for found in group if found[PATH] == [column.encode()]] for group in columns]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("its metadata is not whole") from error


def _chunk(column: dict[int, Any]) -> Chunk:
    numbers = [column[number] for number in (FIRST_DATA, COLUMN_BYTES, COLUMN_VALUES)]
    dictionary = column.get(FIRST_DICTIONARY, 0)
    if not all(_is_size(number) for number in (*numbers, dictionary)):
        raise ValueError("its metadata has a column at no place")
    start, size, values = numbers
    return Chunk(min(start, dictionary) if dictionary else start, size, values)


def read_pages(content: IO[bytes], start: int, size: int, values: int) -> Iterator[Page]:
    """Yield the pages of the column that begins at byte `start`: `size` bytes, `values` values.

    Raises ValueError where there is no whole header.
    """
    place = start
    while values > 0 and place < start + size:
        header, length = _read_header(content, place)
        data = header.get(DATA, header.get(DATA_V2, {}))
        unpacked, packed = header.get(UNPACKED), header.get(PACKED)
        counted = data.get(VALUES, 0) if isinstance(data, dict) else None
        if not (_is_size(unpacked) and _is_size(packed) and _is_size(counted)):
            raise ValueError(f"no page at byte {place}")
        encoding = data.get(ENCODING if DATA in header else ENCODING_V2)
        yield Page(unpacked, header.get(KIND) == DICTIONARY_PAGE, encoding == DELTA_BYTE_ARRAY)
        values -= counted
        place += length + packed


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 0


def _read_header(content: IO[bytes], place: int) -> tuple[dict[int, Any], int]:
    """Return the fields of the header at a place, and its length."""
    length = HEADER_BYTES
    while True:
        content.seek(place)
        data = content.read(length)
        thrift = _Thrift(data)
        try:
            return thrift.struct(), thrift.at
        except IndexError:
            if len(data) < length or length >= HEADER_LIMIT:
                raise ValueError(f"no whole page header at byte {place}") from None
            length *= 16


class _Thrift:
    """Reads Thrift's compact protocol, as much of it as page headers use. Raises IndexError at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return a struct's fields by number."""
        if depth > DEPTH:
            raise ValueError(TOO_DEEP)
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true, false
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 8):  # a double, which nobody asks for, or bytes behind their number
            length = 8 if kind == 7 else self._unsigned()
            self.at += length
            if self.at > len(self._data):
                raise IndexError
            return self._data[self.at - length : self.at] if kind == 8 else None
        if kind == 9:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            one = 3 if head & 15 in (1, 2) else head & 15  # in a list a truth value takes a byte
            if depth > DEPTH:
                raise ValueError(TOO_DEEP)
            return [self._value(one, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"metadata or a page header with a value of kind {kind}")

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a page header with a number too long")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
