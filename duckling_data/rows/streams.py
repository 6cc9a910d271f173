"""Streams of a column's values in files, one for each part of the stories, out of which the dataset's files are cut.

Tasks in different processes write and read them. Each file's checksum is that of CRC-32C (RFC 3720), taken while it is
written, and compared where the streams are read through for their digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import CheckFailed
from duckling_data.base.files import open_regular, renamed
from duckling_data.base.records import Count, FileRecord
from duckling_data.rows.layout import ROWS_PER_BATCH, schema
from duckling_data.rows.write import DataFile

READ_BYTES = 8 << 20
"""Bytes of a file read at a time."""


class StreamRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What identifies a file's content."""

    values: Count
    """How many values it holds, little-endian."""
    crc32c: Count
    """The checksum of its bytes."""


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The digest of a stream's values."""

    sha256: str
    """SHA-256 of the values, little-endian, in hex."""


class StreamWriter:
    """Writes the values of one file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._values = 0
        self._crc32c = 0

    def write(self, values: npt.NDArray[Any]) -> None:
        """Append values, in their own order whatever their shape."""
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        self._crc32c = google_crc32c.extend(self._crc32c, data)
        self._file.write(data)
        self._values += values.size

    def record(self) -> StreamRecord:
        """Return the record of what was written."""
        return StreamRecord(self._values, self._crc32c)


@contextmanager
def stream_writer(path: Path) -> Iterator[StreamWriter]:
    """Give a writer of a new file, which is flushed and gets its name at the end."""
    with renamed(path) as partial, partial.open("xb") as file:
        yield StreamWriter(file)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class Streams:
    """Files of values of one type that are one stream, one behind the other."""

    paths: tuple[Path, ...]
    records: tuple[StreamRecord, ...]
    dtype: str
    """The values' dtype, with its byte order."""

    def pieces(self, start: int, stop: int, size: int) -> Iterator[npt.NDArray[Any]]:
        """Yield the values from `start` to `stop` in arrays of `size`, the last one perhaps shorter.

        Raises CheckFailed for a file that is too short.
        """
        held: npt.NDArray[Any] = np.empty(0, self.dtype)
        ends = accumulate(record.values for record in self.records)
        for path, record, end in zip(self.paths, self.records, ends, strict=True):
            first, last = max(start, end - record.values), min(stop, end)
            if first >= last:
                continue
            with open_regular(path) as file:
                file.seek((first - end + record.values) * held.itemsize)
                while first < last:
                    data = file.read(min(size, last - first) * held.itemsize)
                    if len(data) < held.itemsize:
                        raise _damaged(path)
                    read = np.frombuffer(data, self.dtype, len(data) // held.itemsize)
                    first += len(read)
                    held = np.concatenate([held, read])
                    while len(held) >= size:
                        yield held[:size]
                        held = held[size:]
        if len(held):
            yield held

    def digest(self, stop: int) -> Digest:
        """Return the digest of the values up to `stop`. Raises CheckFailed for a file that is not as it was written."""
        itemsize = np.dtype(self.dtype).itemsize
        digest, left = hashlib.sha256(), stop * itemsize
        for path, record in zip(self.paths, self.records, strict=True):
            crc32c, size = 0, 0
            with open_regular(path) as file:
                while block := file.read(READ_BYTES):
                    crc32c = google_crc32c.extend(crc32c, block)
                    size += len(block)
                    digest.update(memoryview(block)[:left])
                    left -= min(left, len(block))
            if (size, crc32c) != (record.values * itemsize, record.crc32c):
                raise _damaged(path)
        return Digest(digest.hexdigest())


def _damaged(path: Path) -> CheckFailed:
    return CheckFailed(f"{path}: not as it was written; remove {path.parent}, and run the command again.")


def write_rows(path: Path, columns: Sequence[Streams], rows: range, ctx: int, total_vocab: int) -> FileRecord:
    """Write one of a dataset's files: these rows, cut out of the columns' streams. Returns its record."""
    with renamed(path) as partial:
        file = DataFile(partial, schema(ctx, total_vocab, positions=len(columns) > 1), ctx)
        size = ROWS_PER_BATCH * ctx
        pieces = (column.pieces(rows.start * ctx, rows.stop * ctx, size) for column in columns)
        for parts in zip(*pieces, strict=True):
            file.write([part.reshape(-1, ctx) for part in parts])
        return file.finish()
