"""A split's tokens: encoded side by side, in order, and at most once while source and encoder are the same.

The first pass keeps the tokens in the workspace, 2 bytes a token, for the packing pass and for later commands. With
`--no-keep-tokens` a command that counts and packs keeps them in unnamed temporary files, each given back to the disk as
soon as it was read for the last time, so tokens and rows together take little more room than the rows alone.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from duckling_data.base.disk import check_room
from duckling_data.base.executor import LocalExecutor
from duckling_data.corpus.readers.blocks import Block
from duckling_data.corpus.splits import Split, Stretch, numbered_blocks
from duckling_data.rows.layout import arrow_array, row_dtype
from duckling_data.tokens.base import BASE_FILE, BaseTokenizer
from duckling_data.tokens.encoders import Encoder, encoder_version, load_encoder
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.kept import NOT_KEPT, DamagedTokens, KeptTokens
from duckling_data.tokens.kept import EncodedBatch as EncodedBatch
from duckling_data.tokens.store import TokenStore
from duckling_data.tokens.tokenizer_file import open_base

R = TypeVar("R")

TEXT_BYTES = 4
"""Bytes of English text that a token stands for, about."""


class EncoderPool:
    """Encoders for threads to borrow: an encoder holds a lock while it works."""

    def __init__(self, kind: str | None, base: BaseTokenizer = GPT2) -> None:
        self._kind = kind
        self.base = base
        self._idle: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
        self._loading = threading.Lock()

    def made_from(self) -> dict[str, str]:
        """Return what decides the tokens of a text: the encoder with its version, and the base tokenizer."""
        return {"encoder": encoder_version(self._kind), "base": self.base.sha256 or "gpt2"}

    def warm(self) -> None:
        """Begin to load an encoder in the background."""

        def load() -> None:
            with contextlib.suppress(Exception), self._loading:  # raised again where an encoder is borrowed
                self._idle.put(load_encoder(self._kind, self.base))

        threading.Thread(target=load, daemon=True).start()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Encoder]:
        """Lend an encoder that nobody else uses, loading one more if all are in use."""
        encoder = self._waiting()
        if encoder is None:
            with self._loading:  # one at a time: another thread may be loading what is wanted here
                encoder = self._waiting() or load_encoder(self._kind, self.base)
        try:
            yield encoder
        finally:
            self._idle.put(encoder)

    def _waiting(self) -> Encoder | None:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        return None


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
    """A split's tokens, for one pass or several.

    The first pass keeps them: in `store`, for other commands, too; without one in the folder `keep_in`, if that is
    given, in unnamed temporary files. What an earlier command kept is read, and no story is encoded.
    """

    def __init__(
        self, split: Split | Stretch, pool: EncoderPool, workers: int, keep_in: Path | None = None,
        store: TokenStore | None = None,
    ) -> None:  # fmt: skip
        self.split = split
        self.base = pool.base
        self._pool = pool
        self._executor = LocalExecutor(workers)
        self._keep_in = keep_in
        self._store = store
        self._kept: KeptTokens | None = None

    def room(self, rows: int) -> int:
        """Return the bytes of the disk that the last pass takes to write `rows` bytes.

        Tokens that it keeps besides are added; those that it gives back are not needed twice.
        """
        kept = self._find()
        return rows + (0 if self._store is None else self._token_bytes) if kept is None else max(0, rows - kept.freed)

    @property
    def _token_bytes(self) -> int:
        """About how many bytes all tokens take."""
        return self.split.text_bytes // TEXT_BYTES * row_dtype(self._pool.base.vocab_size).itemsize

    def map(
        self, fn: Callable[[EncodedBatch], R], wanted: npt.NDArray[np.bool_] | None = None, *, last: bool = False
    ) -> Iterator[R]:
        """Yield `fn(batch)` for all stories, in order, computed by threads.

        `wanted` (one bool a story) says that the others are not needed; they may come all the same. After the `last`
        pass there is no other: nothing is kept but in the store, and what else was kept is given up.
        """
        done = 0
        if (kept := self._find()) is not None:
            reading = self._executor.map(lambda index: fn(kept.read(index)), range(len(kept)), ordered=True)
            try:
                for index, result in reading:
                    done = kept.end(index)
                    if last:
                        kept.give_up(index)
                    yield result
            except DamagedTokens as damage:
                self._forget(damage)
            if done == self.split.stories:
                self._kept = None if last else self._kept
                return
        yield from self._encoded(fn, wanted, done, last=last)

    def _encoded(
        self, fn: Callable[[EncodedBatch], R], wanted: npt.NDArray[np.bool_] | None, done: int, *, last: bool
    ) -> Iterator[R]:
        """Yield as `map`, from the story `done` on; kept is only the whole."""
        with contextlib.ExitStack() as stack:
            keep = None if done else self._begin_to_keep(stack, last=last)

            def work(numbered: tuple[int, Block]) -> tuple[EncodedBatch, bytes, R]:
                # Parsed and encoded in one go, while the text is still in the core's cache.
                encoded = self._encode(*numbered, wanted if keep is None else None)
                return encoded, encoded.to_bytes() if keep is not None else b"", fn(encoded)

            split = self.split
            if done and not isinstance(split, Stretch):
                split = Stretch(split, 0, done, split.stories)
            for _, (encoded, data, result) in self._executor.map(work, numbered_blocks(split), ordered=True):
                if keep is not None:
                    keep.append(encoded, data)
                yield result
        self._kept = keep

    def _begin_to_keep(self, stack: contextlib.ExitStack, *, last: bool) -> KeptTokens | None:
        """Return what is to be appended to, if anything. Raises OutsideError where the disk has no room."""
        if self._store is not None:
            check_room(self._store.workspace, self._token_bytes, "the tokens that are kept", NOT_KEPT)
            return stack.enter_context(self._store.keeping())
        if self._keep_in is None or last:
            return None
        check_room(self._keep_in, self._token_bytes, "the tokens and, after them, the rows")
        return KeptTokens(self._keep_in, self._pool.base.vocab_size, [], named=False)

    def _find(self) -> KeptTokens | None:
        """Return the tokens that are kept, also by an earlier command."""
        if self._kept is None and self._store is not None:
            try:
                self._kept = self._store.find(self.split.stories)
            except DamagedTokens as damage:
                self._forget(damage)
        return self._kept

    def _forget(self, damage: DamagedTokens) -> None:
        """Say what is damaged, and remove it: its stories are encoded again."""
        assert self._store is not None
        self._store.say(f"tokens       {damage}: not as it was written; removed, and the stories encoded again")
        self._store.remove()
        self._kept = None

    def _encode(self, first: int, block: Block, wanted: npt.NDArray[np.bool_] | None) -> EncodedBatch:
        texts = block.parse()
        read, nulls = len(texts), texts.null_count
        chosen = np.arange(read)
        if wanted is not None:
            chosen = np.flatnonzero(wanted[first : first + read])
            texts = texts.take(arrow_array(chosen))
        with self._pool.borrow() as encoder:
            encoded = encoder.encode_batch(texts.fill_null("") if nulls else texts)
        return EncodedBatch(first + chosen, encoded.tokens, encoded.lengths, read, nulls)


def encoded_splits(
    splits: Mapping[str, Split], digests: Mapping[str, str], pool: EncoderPool, workers: int, workspace: Path,
    *, keep: bool, passes: int, say: Callable[[str], None],
) -> dict[str, EncodedSplit]:  # fmt: skip
    """Return the splits with where their tokens are kept; `digests` are those of their stories.

    Unless `keep`, training stories that this command goes through in two `passes` are kept meanwhile; where it goes
    through them in none, nothing is kept.
    """
    if not keep or not passes:
        keep_in = {"train": workspace} if passes > 1 else {}
        return {name: EncodedSplit(split, pool, workers, keep_in.get(name)) for name, split in splits.items()}
    made_from = pool.made_from()
    encoded = {}
    for name, split in splits.items():
        store = TokenStore(workspace, name, {"source": digests[name]} | made_from, pool.base.vocab_size, say)
        encoded[name] = EncodedSplit(split, pool, workers, store=store)
    return encoded
