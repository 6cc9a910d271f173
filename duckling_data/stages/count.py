"""Stage `count`: how often each GPT-2 token occurs in a sample of the stories, and in which order they first appear.

The sample is the original's: `dataset.shuffle(seed).select(range(sample))`, which is the start of numpy's
permutation of the stories. Counts are sums and first appearances are minima, so batches may be counted in any
order and in any number of threads: each carries its stories' places in the sample with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.splits import Split
from duckling_data.rows.layout import TokenIds
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit
from duckling_data.tokens.gpt2 import GPT2

COVERAGE_LEVELS = (0.9, 0.95, 0.99, 0.995, 0.999)
LENGTH_BIN = 16
"""Tokens in a bin of the story-length histogram."""
LENGTH_BINS = 128
"""Bins of that histogram; the last also holds everything longer."""


NEVER = np.iinfo(np.int64).max
NO_PLACE = np.iinfo(np.int32).max
"""Later than every place in a sample: a corpus holds fewer stories than this."""
OFFSET_BITS = 36
"""A first appearance is (place of the story in the sample) << OFFSET_BITS | (token's place in the story)."""


@dataclass(frozen=True)
class CountSettings:
    """The settings of the stage."""

    sample: int | None = 100_000
    """Stories counted; None counts all of them, in the corpus's own order."""
    seed: int = 42
    """The seed of the sample's permutation; without effect where all are counted."""

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise InputError(f"--sample {self.sample}: expected a number of stories from 1 up, or `all`.")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: expected 0 or more.")


@dataclass(frozen=True)
class TokenCounts:
    """The counts, most frequent first, ties in order of first appearance (`collections.Counter.most_common`)."""

    gpt2_id: npt.NDArray[np.int64]
    """(n,) GPT-2 ids that occur."""
    count: npt.NDArray[np.int64]
    """(n,) how often."""
    first_seen: npt.NDArray[np.int64]
    """(n,) rank of first appearance: 0 for the very first token of the sample, no gaps."""

    @property
    def total(self) -> int:
        """The number of tokens counted."""
        return int(self.count.sum())

    def digest(self) -> str:
        """Return the SHA-256 of the (id, count, first_seen) rows as little-endian int64, in hex."""
        rows = np.stack([self.gpt2_id, self.count, self.first_seen], axis=1)
        return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()

    def ids_for_coverage(self) -> dict[str, int]:
        """Return how many of the most frequent ids cover each of COVERAGE_LEVELS of the tokens."""
        covered = np.cumsum(self.count) / self.total
        return {f"{level:.1%}": int(np.searchsorted(covered, level)) + 1 for level in COVERAGE_LEVELS}


def sample_places(stories: int, settings: CountSettings) -> npt.NDArray[np.int32]:
    """Return, for each story, its place in the sample, or -1 if it is not in it. int32, shape (stories,).

    The permutation is the one of `datasets.Dataset.shuffle(seed)`: `np.random.default_rng(seed).permutation(n)`.
    """
    if settings.sample is None:
        return np.arange(stories, dtype=np.int32)
    chosen = np.random.default_rng(settings.seed).permutation(stories)[: settings.sample]
    places = np.full(stories, -1, dtype=np.int32)
    places[chosen] = np.arange(len(chosen))
    return places


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
    def zero(cls) -> Tally:
        """Return the tally of no stories."""
        return cls(
            np.zeros(GPT2.vocab_size, np.int64), np.full(GPT2.vocab_size, NEVER), np.zeros(LENGTH_BINS, np.int64)
        )

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.count += other.count
        np.minimum(self.first, other.first, out=self.first)
        self.lengths += other.lengths
        self.stories += other.stories
        self.nulls += other.nulls
        self.empty += other.empty

    def lower(self, earliest: npt.NDArray[np.int32]) -> None:
        """Lower the places in `earliest` (int32, one for each GPT-2 id) to those of the stories tallied here."""
        seen = np.flatnonzero(self.first != NEVER)
        earliest[seen] = np.minimum(earliest[seen], self.first[seen] >> OFFSET_BITS)

    def counts(self) -> TokenCounts:
        """Return the tokens that occur, most frequent first."""
        occurring = np.flatnonzero(self.count)
        first_seen = np.empty(len(occurring), np.int64)
        first_seen[np.argsort(self.first[occurring])] = np.arange(len(occurring))
        order = np.lexsort((first_seen, -self.count[occurring]))
        ids = occurring[order]
        return TokenCounts(ids, self.count[ids], first_seen[order])


def tally_batch(batch: EncodedBatch, places: npt.NDArray[np.int32], earliest: npt.NDArray[np.int32]) -> Tally:
    """Return the tally of the batch's sampled stories. `places` is `sample_places` of the whole split.

    `earliest` holds, for each GPT-2 id, the earliest place of a story known to hold it so far (or NO_PLACE): a token in
    a later story cannot be the first, and nearly all are passed over by that one comparison. A value that is out of
    date lets more tokens through and changes nothing.
    """
    tally = Tally.zero()
    tally.nulls = batch.nulls
    mine = places[batch.stories]
    tokens, lengths, mine = _sampled(batch, mine)
    tally.stories = len(mine)
    tally.empty = int(np.count_nonzero(lengths == 0))
    tally.lengths = np.bincount(np.minimum(lengths // LENGTH_BIN, LENGTH_BINS - 1), minlength=LENGTH_BINS)
    tally.count = np.bincount(tokens, minlength=GPT2.vocab_size)
    candidates = np.flatnonzero(np.repeat(mine, lengths) < earliest.take(tokens))
    starts = np.cumsum(lengths) - lengths
    story = np.searchsorted(starts, candidates, side="right") - 1
    appearance = (mine[story].astype(np.int64) << OFFSET_BITS) | (candidates - starts[story])
    np.minimum.at(tally.first, tokens[candidates], appearance)
    return tally


def _sampled(
    batch: EncodedBatch, mine: npt.NDArray[np.int32]
) -> tuple[TokenIds, npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return (tokens, lengths, places) of the batch's sampled stories."""
    sampled = mine >= 0
    if sampled.all():
        return batch.tokens, batch.lengths, mine
    return batch.tokens[np.repeat(sampled, batch.lengths)], batch.lengths[sampled], mine[sampled]


def count_tokens(
    encoded: EncodedSplit, settings: CountSettings, reporter: Reporter
) -> tuple[TokenCounts, dict[str, Any]]:
    """Count the split's sample. Returns the counts and the figures for the manifest.

    Raises InputError where the sample holds no token at all.
    """
    split = encoded.split
    places = sample_places(split.stories, settings)
    total = Tally.zero()
    earliest = np.full(GPT2.vocab_size, NO_PLACE, np.int32)

    def tally(batch: EncodedBatch) -> tuple[Tally, int]:
        return tally_batch(batch, places, earliest), batch.read

    with reporter.bar("count", split.stories, "stories") as bar:
        for part, read in encoded.map(tally, wanted=places >= 0):
            total.add(part)
            part.lower(earliest)
            bar.update(read)
    counts = total.counts()
    if counts.total == 0:
        raise InputError(f"all {total.stories:,} stories counted are empty: nothing to count.")
    return counts, _figures(counts, total, split)


def _figures(counts: TokenCounts, tally: Tally, split: Split) -> dict[str, Any]:
    return {
        "stories": split.stories,
        "stories_counted": tally.stories,
        "null_stories": tally.nulls,
        "empty_stories_counted": tally.empty,
        "tokens": counts.total,
        "distinct": len(counts.gpt2_id),
        "ids_for_coverage": counts.ids_for_coverage(),
        "story_length_histogram": {"bin_tokens": LENGTH_BIN, "stories": np.trim_zeros(tally.lengths, "b").tolist()},
        "counts_sha256": counts.digest(),
    }


def occurring_ids(encoded: EncodedSplit, reporter: Reporter) -> npt.NDArray[np.int64]:
    """Return the GPT-2 ids that occur anywhere in the split, ascending."""
    seen = np.zeros(GPT2.vocab_size, bool)
    with reporter.bar("scan", encoded.split.stories, "stories") as bar:
        for ids, read in encoded.map(lambda batch: (np.unique(batch.tokens), batch.read)):
            seen[ids] = True
            bar.update(read)
    return np.flatnonzero(seen)
