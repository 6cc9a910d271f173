"""A split's GPT-2 tokens: encoded side by side, in order, and at most once in a command.

A command that counts and packs encodes once: the counting pass keeps the tokens in unnamed temporary files, 2 bytes a
token, which the packing pass reads. Each of these segments is given back to the disk as soon as it was read for the
last time, so tokens and rows together take little more room than the rows alone. All end with the process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from duckling_data.base.disk import check_room, disk_errors
from duckling_data.base.executor import LocalExecutor
from duckling_data.base.files import write_all
from duckling_data.corpus.readers.blocks import Block
from duckling_data.corpus.splits import Split, Stretch, numbered_blocks
from duckling_data.rows.layout import TokenIds
from duckling_data.tokens.base import BASE_FILE, BaseTokenizer
from duckling_data.tokens.encoders import Encoder, load_encoder
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.tokenizer_file import open_base

R = TypeVar("R")

TEXT_BYTES = 4
"""Bytes of English text that a token stands for, about."""


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


class EncoderPool:
    """Encoders for threads to borrow: an encoder holds a lock while it works."""

    def __init__(self, kind: str | None, base: BaseTokenizer = GPT2) -> None:
        self._kind = kind
        self.base = base
        self._idle: queue.SimpleQueue[Encoder] = queue.SimpleQueue()

    def warm(self, encoders: int) -> None:
        """Begin to load encoders in the background."""

        def load() -> None:
            with contextlib.suppress(Exception):  # raised again where an encoder is borrowed
                for _ in range(encoders):
                    self._idle.put(load_encoder(self._kind, self.base))

        threading.Thread(target=load, daemon=True).start()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Encoder]:
        """Lend an encoder that nobody else uses, loading one more if all are in use."""
        try:
            encoder = self._idle.get_nowait()
        except queue.Empty:
            encoder = load_encoder(self._kind, self.base)
        try:
            yield encoder
        finally:
            self._idle.put(encoder)


class Encoding(NamedTuple):
    """What encodes, as it is told to another process."""

    kind: str | None
    """As `load_encoder` takes it."""
    base: tuple[Path, str] | None = None
    """The base's file and its SHA-256; None for GPT-2."""

    @classmethod
    def of(cls, kind: str | None, base: BaseTokenizer, workspace: Path) -> Encoding:
        """Return what encodes with a workspace's base."""
        return cls(kind, None if base.sha256 is None else (workspace / BASE_FILE, base.sha256))


@cache
def shared_pool(encoding: Encoding) -> EncoderPool:
    """Return this process's pool of such encoders, for tasks that follow each other in it."""
    if encoding.base is None:
        return EncoderPool(encoding.kind)
    return EncoderPool(encoding.kind, open_base(*encoding.base, "the workspace"))


class EncodedSplit:
    """A split's tokens, for one pass or several; the first one's are kept in the folder `keep_in`, if there is one."""

    def __init__(self, split: Split | Stretch, pool: EncoderPool, workers: int, keep_in: Path | None = None) -> None:
        self.split = split
        self.base = pool.base
        self._pool = pool
        self._executor = LocalExecutor(workers)
        self._keep_in = keep_in
        self._kept: _KeptTokens | None = None

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept tokens on the disk, which the last pass gives back."""
        return self._kept.bytes if self._kept else 0

    def map(
        self, fn: Callable[[EncodedBatch], R], wanted: npt.NDArray[np.bool_] | None = None, *, last: bool = False
    ) -> Iterator[R]:
        """Yield `fn(batch)` for all stories, in order, computed by threads.

        `wanted` (one bool a story) says that the others are not needed; they may come all the same. After the `last`
        pass there is no other: nothing is kept, and what was kept is given up.
        """
        if (kept := self._kept) is not None:
            for index, result in self._executor.map(lambda index: fn(kept.read(index)), range(len(kept)), ordered=True):
                if last:
                    kept.give_up(index)
                yield result
            if last:
                self._kept = None
            return
        keep = None
        if self._keep_in is not None and not last:
            needed = self.split.text_bytes // TEXT_BYTES * self.base.id_dtype.itemsize
            check_room(self._keep_in, needed, "the tokens and, after them, the rows")
            keep = _KeptTokens(self._keep_in, self.base.id_dtype)

        def work(numbered: tuple[int, Block]) -> tuple[EncodedBatch, R]:
            # Parsed and encoded in one go, while the text is still in the core's cache.
            encoded = self._encode(*numbered, wanted if keep is None else None)
            return encoded, fn(encoded)

        for _, (encoded, result) in self._executor.map(work, numbered_blocks(self.split), ordered=True):
            if keep is not None:
                keep.append(encoded)
            yield result
        self._kept = keep

    def _encode(self, first: int, block: Block, wanted: npt.NDArray[np.bool_] | None) -> EncodedBatch:
        import pyarrow as pa

        texts = block.parse()
        read, nulls = len(texts), texts.null_count
        chosen = np.arange(read)
        if wanted is not None:
            chosen = np.flatnonzero(wanted[first : first + read])
            texts = texts.take(pa.array(chosen))
        with self._pool.borrow() as encoder:
            encoded = encoder.encode_batch(texts.fill_null("") if nulls else texts)
        return EncodedBatch(first + chosen, encoded.tokens, encoded.lengths, read, nulls)


SEGMENT_BYTES = 64 << 20
"""Kept tokens in one temporary file."""


class _Span(NamedTuple):
    """Where a kept batch is, and what it holds."""

    file: IO[bytes]
    offset: int
    bytes: int
    stories: int
    first: int
    nulls: int


class _KeptTokens:
    """Batches of whole stories in unnamed temporary files: int32 lengths, then ids of the base tokenizer."""

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self._folder = folder
        self._dtype = dtype
        self._spans: list[_Span] = []
        self._file: IO[bytes] | None = None
        self._end = self.bytes = 0

    def __len__(self) -> int:
        return len(self._spans)

    def append(self, batch: EncodedBatch) -> None:
        """Keep a batch."""
        data = batch.lengths.astype(np.int32).tobytes() + batch.tokens.tobytes()
        with disk_errors(self._folder):
            if self._file is None or self._end >= SEGMENT_BYTES:
                # Without a buffer, so that what was written can be read through the file's number.
                self._file, self._end = tempfile.TemporaryFile(dir=self._folder, buffering=0), 0  # noqa: SIM115
            write_all(self._file, data)
        first = int(batch.stories[0])
        self._spans.append(_Span(self._file, self._end, len(data), len(batch.lengths), first, batch.nulls))
        self._end, self.bytes = self._end + len(data), self.bytes + len(data)

    def read(self, index: int) -> EncodedBatch:
        """Return a batch that was kept; any number of threads may."""
        span = self._spans[index]
        data = os.pread(span.file.fileno(), span.bytes, span.offset)
        lengths = np.frombuffer(data, np.int32, span.stories).astype(np.int64)
        tokens = np.frombuffer(data, self._dtype, offset=span.stories * 4)
        return EncodedBatch(span.first + np.arange(span.stories), tokens, lengths, span.stories, span.nulls)

    def give_up(self, index: int) -> None:
        """Free the batch's segment if it is the last in it: batches are given up in order."""
        if index + 1 == len(self._spans) or self._spans[index + 1].file is not self._spans[index].file:
            self._spans[index].file.close()
