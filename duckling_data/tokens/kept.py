"""A split's tokens while a command works, and after: batches of whole stories in files, each read by any thread.

In the workspace (`store`) the files have names and each batch a checksum; else they have no name and end with the
process.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Annotated

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.disk import OTHER_WORKSPACE, disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular, write_all
from duckling_data.base.records import Count
from duckling_data.rows.layout import TokenIds, row_dtype

SEGMENT_BYTES = 64 << 20
"""Kept tokens in one file."""
LENGTHS = np.dtype("<i4")
"""How the stories' lengths are written, before the ids of a batch."""
NOT_KEPT = f"give --no-keep-tokens, or {OTHER_WORKSPACE}"
"""What to do on a full disk."""


@dataclass(frozen=True)
class EncodedBatch:
    """Some stories of a split, encoded."""

    stories: npt.NDArray[np.int64]
    """(n,) the index of each story in the split, ascending."""
    tokens: TokenIds
    """The GPT-2 ids of the stories, one after the other."""
    lengths: npt.NDArray[np.int64]
    """(n,) tokens in each story."""
    read: int
    """How many stories were read for this batch: more than n where only some are wanted."""
    nulls: int
    """How many of the stories read were null, and are empty here."""

    def to_bytes(self) -> bytes:
        """Return lengths and ids as they are kept, little-endian."""
        ids = self.tokens.dtype.newbyteorder("<")
        return b"".join((self.lengths.astype(LENGTHS).data, np.ascontiguousarray(self.tokens, ids).data))


class KeptBatch(msgspec.Struct, frozen=True, array_like=True):
    """Where a batch of whole stories is kept, and what it holds."""

    segment: Count
    """The number of its file."""
    offset: Count
    stories: Annotated[int, msgspec.Meta(ge=1)]
    nulls: Count
    size: Count
    """Its bytes."""
    crc32c: Count

    def unpacked(self, data: bytes, first: int, vocab_size: int) -> EncodedBatch:
        """Return the batch in `data`; its first story has the index `first`. Raises ValueError for impossible ones."""
        ids = row_dtype(vocab_size)
        lengths = np.frombuffer(data, LENGTHS, self.stories).astype(np.int64)
        tokens = np.frombuffer(data, ids.newbyteorder("<"), offset=self.stories * LENGTHS.itemsize)
        if lengths.min() < 0 or lengths.sum() != len(tokens) or tokens.max(initial=0) >= vocab_size:
            raise ValueError("lengths or ids that no stories have")
        stories = first + np.arange(self.stories)
        return EncodedBatch(stories, tokens.astype(ids, copy=False), lengths, self.stories, self.nulls)


class DamagedTokens(Exception):
    """Kept tokens are not as they were written; the argument is the path of the file."""


class KeptTokens:
    """Batches of whole stories in segment files: appended in order, then read by any number of threads.

    The files are in `folder`, under a number if they are `named`, else without a name: then each is freed as soon as it
    was read for the last time, and all end with the process.
    """

    def __init__(self, folder: Path, vocab_size: int, batches: list[KeptBatch], *, named: bool) -> None:
        self.folder, self.batches = folder, batches
        self._vocab_size, self._named = vocab_size, named
        self._files: dict[int, IO[bytes]] = {}
        self._firsts = list(accumulate((batch.stories for batch in batches), initial=0))

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def stories(self) -> int:
        """How many stories there are."""
        return self._firsts[-1]

    @property
    def freed(self) -> int:
        """Bytes of the disk that the last pass gives back."""
        return 0 if self._named else sum(batch.size for batch in self.batches)

    def end(self, index: int) -> int:
        """Return the index of the first story behind a batch."""
        return self._firsts[index + 1]

    def append(self, batch: EncodedBatch, data: bytes) -> None:
        """Keep a batch, whose `to_bytes` is `data`."""
        last = self.batches[-1] if self.batches else None
        segment, offset = (last.segment, last.offset + last.size) if last else (0, 0)
        if offset >= SEGMENT_BYTES:
            segment, offset = segment + 1, 0
        with disk_errors(self.folder, NOT_KEPT if self._named else OTHER_WORKSPACE):
            if segment not in self._files:
                if self._named:
                    self.close()  # what is read again is opened again: a process may have few files open
                self._files[segment] = self._new(segment)
            write_all(self._files[segment], data)
        checksum = google_crc32c.value(data) if self._named else 0
        self.batches.append(KeptBatch(segment, offset, batch.read, batch.nulls, len(data), checksum))
        self._firsts.append(self.stories + batch.read)

    def _new(self, segment: int) -> IO[bytes]:
        # Without a buffer, so that what was written can be read through the file's number.
        if self._named:
            return self._path(segment).open("xb", buffering=0)
        return tempfile.TemporaryFile(dir=self.folder, buffering=0)

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:05d}"

    def read(self, index: int) -> EncodedBatch:
        """Return a batch. Raises DamagedTokens."""
        batch, first = self.batches[index], self._firsts[index]
        if not self._named:
            return batch.unpacked(_pread(self._files[batch.segment], batch), first, self._vocab_size)
        path = self._path(batch.segment)
        try:
            with open_regular(path) as file:
                data = _pread(file, batch)
            if google_crc32c.value(data) != batch.crc32c:
                raise ValueError("another checksum")
            return batch.unpacked(data, first, self._vocab_size)
        except (OSError, InputError, ValueError) as error:
            raise DamagedTokens(path) from error

    def give_up(self, index: int) -> None:
        """Free the batch's segment if it has no name, and the batch is the last in it: they are given up in order."""
        segment = self.batches[index].segment
        if segment in self._files and (index + 1 == len(self) or self.batches[index + 1].segment != segment):
            self._files.pop(segment).close()

    def close(self) -> None:
        """Close the files that were written."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _pread(file: IO[bytes], batch: KeptBatch) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if size < batch.offset + batch.size:  # before so much memory is asked for
        raise ValueError(f"{size:,} bytes, expected {batch.offset + batch.size:,} or more")
    return os.pread(file.fileno(), batch.size, batch.offset)
