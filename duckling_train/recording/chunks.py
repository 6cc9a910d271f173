"""The files of a record's arrays: a chunk with its CRC-32C, or many of them and an index, which is a zarr shard."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zstandard

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular

SUM = 4
"""Bytes of a CRC-32C."""
LARGEST = 1 << 28
"""The largest file of one chunk that is read, in bytes."""


class Damaged(InputError):
    """A file of a record is missing, or not what was written."""


def summed(content: bytes) -> bytes:
    """Return the content with its CRC-32C behind it."""
    return content + struct.pack("<I", google_crc32c.value(content))


def checked(content: bytes, what: str) -> bytes:
    """Return the content without the CRC-32C behind it. Raises Damaged, naming `what` it is, for another one."""
    body = content[:-SUM]
    if len(content) < SUM or content[-SUM:] != struct.pack("<I", google_crc32c.value(body)):
        raise Damaged(f"{what} is damaged (its CRC-32C differs)")
    return body


def shard(chunks: Sequence[bytes]) -> bytes:
    """Return a shard's bytes: its chunks, an empty one being one that is not there, and behind them the index."""
    missing, at, index = 2**64 - 1, 0, []
    for chunk in chunks:
        index += [at, len(chunk)] if chunk else [missing, missing]
        at += len(chunk)
    return b"".join([*chunks, summed(struct.pack(f"<{len(index)}Q", *index))])


class Shard:
    """A shard that is read; a context manager. Raises Damaged where it is missing, or its index is not what it was."""

    def __init__(self, path: Path, count: int) -> None:
        """Open the shard of so many chunks."""
        self.path = path
        self._file = _opened(path)
        size, index = os.fstat(self._file.fileno()).st_size, 16 * count + SUM
        try:
            if size < index:
                raise Damaged(f"{path}: {size:,} bytes, expected the index of {count:,} chunks")
            content = checked(self._read(size - index, index), f"{path}: the index of its chunks")
            self._index = np.frombuffer(content, "<u8").reshape(count, 2)
            self._end = size - index
        except BaseException:
            self._file.close()
            raise

    def chunk(self, number: int, what: str) -> bytes:
        """Return a chunk's bytes. Raises Damaged, naming `what` it holds, for one that is not what was written."""
        first, size = map(int, self._index[number])
        named = f"{self.path}: the chunk of {what}"
        if first + size > self._end:
            raise Damaged(f"{named} is missing")
        return checked(self._read(first, size), named)

    def chunks(self, end: int) -> list[bytes]:
        """Return the chunks before `end` as they are in the file, their sums with them."""
        return [self._read(int(first), int(size)) for first, size in self._index[:end]]

    def _read(self, first: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, first)

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()


def _opened(path: Path) -> IO[bytes]:
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        raise Damaged(f"{path} is missing") from error
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error


def plain(values: npt.NDArray[Any], *, compressed: bool) -> bytes:
    """Return the bytes of a file of one chunk."""
    content = np.ascontiguousarray(values).tobytes()
    return summed(zstandard.ZstdCompressor(level=1).compress(content) if compressed else content)


def read_plain(path: Path, kind: str, shape: tuple[int, ...], *, compressed: bool) -> npt.NDArray[Any]:
    """Return the array of a file of one chunk. Raises Damaged for another one."""
    with _opened(path) as file:
        content = checked(file.read(LARGEST), str(path))
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    try:
        if compressed:
            content = zstandard.ZstdDecompressor().decompress(content, max_output_size=size)
        return np.frombuffer(content, kind).reshape(shape)
    except (zstandard.ZstdError, ValueError) as error:
        raise Damaged(f"{path} is damaged ({error})") from error
