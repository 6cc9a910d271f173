"""A split's GPT-2 tokens: encoded side by side, in order, and at most once in a command.

Reading and encoding are most of the work of counting and of packing. A command that does both (`pack` in an empty
workspace) encodes once: the counting pass keeps the tokens in an unnamed temporary file, 2 bytes a token, which the
packing pass reads and which is gone with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt

from duckling_data.corpus import Split, StoryBatch, batches
from duckling_data.files import disk_errors
from duckling_data.gpt2 import Encoder, load_encoder
from duckling_data.parallel import ordered_map

R = TypeVar("R")


@dataclass(frozen=True)
class EncodedBatch:
    """Some stories of a split, encoded."""

    stories: npt.NDArray[np.int64]
    """(n,) the index of each story in the split, ascending."""
    tokens: npt.NDArray[np.uint16]
    """The GPT-2 ids of the stories, one after the other."""
    lengths: npt.NDArray[np.int64]
    """(n,) tokens in each story."""
    read: int
    """How many stories were read for this batch: more than n where only some are wanted."""
    nulls: int
    """How many of the stories read were null, and are empty here."""


class EncoderPool:
    """Encoders for threads to borrow. One shared encoder would make them wait: it holds a lock while it works."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._idle: queue.SimpleQueue[Encoder] = queue.SimpleQueue()

    def warm(self, encoders: int) -> None:
        """Begin to load encoders in the background."""

        def load() -> None:
            # An error here comes again, and is seen, where an encoder is borrowed.
            with contextlib.suppress(Exception):
                for _ in range(encoders):
                    self._idle.put(load_encoder(self._kind))

        threading.Thread(target=load, daemon=True).start()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Encoder]:
        """Lend an encoder that nobody else uses, loading one more if all are in use."""
        try:
            encoder = self._idle.get_nowait()
        except queue.Empty:
            encoder = load_encoder(self._kind)
        try:
            yield encoder
        finally:
            self._idle.put(encoder)


class EncodedSplit:
    """A split's tokens, to be gone through once or several times."""

    def __init__(self, split: Split, pool: EncoderPool, workers: int, keep_in: Path | None = None) -> None:
        """`keep_in` is a folder for the temporary file that keeps the tokens of the first pass; None keeps nothing."""
        self.split = split
        self._pool = pool
        self._workers = workers
        self._keep_in = keep_in
        self._kept: _KeptTokens | None = None

    def map(self, fn: Callable[[EncodedBatch], R], wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[R]:
        """Yield `fn(batch)` for all stories, in order, computed by threads.

        `wanted` (one bool a story) says that the others are not needed; they may come all the same.
        """
        if self._kept is not None:
            yield from ordered_map(lambda index: fn(self._kept_batch(index)), range(len(self._kept)), self._workers)
            return
        keep = _KeptTokens(self._keep_in) if self._keep_in is not None else None

        def work(batch: StoryBatch) -> tuple[EncodedBatch | None, R]:
            encoded = self._encode(batch, wanted if keep is None else None)
            return (None if keep is None else encoded), fn(encoded)

        for encoded, result in ordered_map(work, batches(self.split, self._workers), self._workers):
            if keep is not None and encoded is not None:
                keep.append(encoded)
            yield result
        self._kept = keep

    def _encode(self, batch: StoryBatch, wanted: npt.NDArray[np.bool_] | None) -> EncodedBatch:
        import pyarrow as pa

        texts = batch.texts
        chosen = np.arange(len(texts))
        if wanted is not None:
            chosen = np.flatnonzero(wanted[batch.first : batch.first + len(texts)])
            texts = texts.take(pa.array(chosen))
        with self._pool.borrow() as encoder:
            encoded = encoder.encode_batch(texts)
        return EncodedBatch(batch.first + chosen, encoded.tokens, encoded.lengths, len(batch.texts), batch.nulls)

    def _kept_batch(self, index: int) -> EncodedBatch:
        assert self._kept is not None
        return self._kept.read(index)


@dataclass(frozen=True)
class _Span:
    offset: int
    stories: int
    tokens: int
    first: int
    nulls: int


class _KeptTokens:
    """Batches of whole stories in an unnamed temporary file: lengths as int32, then tokens as uint16."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with disk_errors(folder):
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # lives as long as this object
        self._spans: list[_Span] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._spans)

    def append(self, batch: EncodedBatch) -> None:
        """Keep a batch."""
        lengths = batch.lengths.astype(np.int32)
        with disk_errors(self._folder):
            self._file.write(lengths.data)
            self._file.write(batch.tokens.data)
        first = int(batch.stories[0])
        self._spans.append(_Span(self._end, len(lengths), len(batch.tokens), first, batch.nulls))
        self._end += lengths.nbytes + batch.tokens.nbytes

    def read(self, index: int) -> EncodedBatch:
        """Return a batch that was kept; any number of threads may."""
        span = self._spans[index]
        self._file.flush()
        data = os.pread(self._file.fileno(), span.stories * 4 + span.tokens * 2, span.offset)
        lengths = np.frombuffer(data, np.int32, span.stories).astype(np.int64)
        tokens = np.frombuffer(data, np.uint16, span.tokens, span.stories * 4)
        return EncodedBatch(span.first + np.arange(span.stories), tokens, lengths, span.stories, span.nulls)
