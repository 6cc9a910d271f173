"""Counts of stories that add up: how often each GPT-2 token occurs, where it occurs first, how long stories are.

Counts are sums and first appearances are minima, so batches and shards may be counted in any order, in any number of
threads and processes: each carries its stories' positions in the sample with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.progress import nothing
from duckling_data.base.records import Count
from duckling_data.stages.counts import TokenCounts
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit
from duckling_data.tokens.gpt2 import GPT2

LENGTH_BIN = 16
"""Tokens in a bin of the story-length histogram."""
LENGTH_BINS = 128
"""Bins of that histogram; the last also holds everything longer."""

OFFSET_BITS = 32
"""A first appearance is (position of the story in the sample) << OFFSET_BITS | (token's position in the story).

A position is an int32 below NEVER's, and no story has so many tokens (`readers.blocks.STORY_LIMIT`)."""
NEVER = np.iinfo(np.int64).max
"""The first appearance of a token that does not occur: later than all others, its story's position too."""


@dataclass
class Tally:
    """Counts of some stories, and the earliest appearance of each token among them. Tallies add up in any order."""

    count: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    stories: int = 0
    nulls: int = 0
    empty: int = 0

    @classmethod
    def zero(cls, base: BaseTokenizer = GPT2) -> Tally:
        """Return the tally of no stories."""
        count = np.zeros(base.vocab_size, np.int64)
        return cls(count, np.full_like(count, NEVER), np.zeros(LENGTH_BINS, np.int64))

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.count += other.count
        np.minimum(self.first, other.first, out=self.first)
        self.lengths += other.lengths
        self.stories += other.stories
        self.nulls += other.nulls
        self.empty += other.empty

    def earliest(self) -> npt.NDArray[np.int32]:
        """Return, for each GPT-2 id, the position of the earliest story that holds it; later than all if none does."""
        return (self.first >> OFFSET_BITS).astype(np.int32)

    def counts(self) -> TokenCounts:
        """Return the tokens that occur, most frequent first."""
        occurring = np.flatnonzero(self.count)
        first_seen = np.empty(len(occurring), np.int64)
        first_seen[np.argsort(self.first[occurring])] = np.arange(len(occurring))
        order = np.lexsort((first_seen, -self.count[occurring]))
        ids = occurring[order]
        return TokenCounts(ids, self.count[ids], first_seen[order])


def tally_batch(batch: EncodedBatch, positions: npt.NDArray[np.int32], earliest: npt.NDArray[np.int32]) -> Tally:
    """Return the tally of the batch's sampled stories. `positions` is `sample_positions` of the whole split.

    `earliest` is `Tally.earliest` of the stories counted so far: a token in a later story cannot be the first, and
    nearly all are excluded by that. A value that is out of date excludes fewer tokens and changes no
    result.
    """
    tokens, lengths, own = batch.tokens, batch.lengths, positions[batch.stories]
    sampled = own >= 0
    if not sampled.all():
        tokens, lengths, own = tokens[np.repeat(sampled, lengths)], lengths[sampled], own[sampled]
    tally = Tally(
        count=np.bincount(tokens, minlength=len(earliest)),
        first=np.full(len(earliest), NEVER),
        lengths=np.bincount(np.minimum(lengths // LENGTH_BIN, LENGTH_BINS - 1), minlength=LENGTH_BINS),
        stories=len(own),
        nulls=batch.nulls,
        empty=int(np.count_nonzero(lengths == 0)),
    )
    if not len(own):
        return tally
    # First by the ids that occur: most batches hold none that could appear earlier than it did.
    fresh = (tally.count > 0) & (earliest > own.min())
    candidates = np.flatnonzero(fresh.take(tokens)) if fresh.any() else np.empty(0, np.int64)
    candidates = candidates[np.repeat(own, lengths)[candidates] < earliest[tokens[candidates]]]
    starts = np.cumsum(lengths) - lengths
    story = np.searchsorted(starts, candidates, side="right") - 1
    appearance = (own[story].astype(np.int64) << OFFSET_BITS) | (candidates - starts[story])
    np.minimum.at(tally.first, tokens[candidates], appearance)
    return tally


def tally_stories(
    encoded: EncodedSplit, positions: npt.NDArray[np.int32], done: Callable[[int], object] = nothing
) -> Tally:
    """Return the tally of the stories that have a position in the sample; `done` is told how many were read."""
    total = Tally.zero(encoded.base)
    earliest = total.earliest()

    def tally(batch: EncodedBatch) -> tuple[Tally, int]:
        return tally_batch(batch, positions, earliest), batch.read

    for part, read in encoded.map(tally, wanted=positions >= 0):
        total.add(part)
        earliest[:] = total.earliest()
        done(read)
    return total


class ShardTally(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tally as a file keeps it: arrays as little-endian int64."""

    ids: bytes
    """The ids that occur; `count` and `first` are theirs."""
    count: bytes
    first: bytes
    lengths: bytes
    stories: Count
    nulls: Count
    empty: Count

    @classmethod
    def of(cls, tally: Tally) -> ShardTally:
        """Return the tally's record."""
        ids = np.flatnonzero(tally.count)
        arrays = (ids, tally.count[ids], tally.first[ids], tally.lengths)
        ids_, count, first, lengths = (array.astype("<i8").tobytes() for array in arrays)
        return cls(ids_, count, first, lengths, tally.stories, tally.nulls, tally.empty)

    def tally(self, base: BaseTokenizer = GPT2) -> Tally:
        """Return the tally, of the tokens of `base`."""
        ids, count, first, lengths = (
            np.frombuffer(array, "<i8") for array in (self.ids, self.count, self.first, self.lengths)
        )
        tally = replace(Tally.zero(base), lengths=lengths, stories=self.stories, nulls=self.nulls, empty=self.empty)
        tally.count[ids], tally.first[ids] = count, first
        return tally
