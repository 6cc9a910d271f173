"""Stage `count`: how often each GPT-2 token occurs in a sample of the stories, and in which order they first appear.

The sample is the original's: `dataset.shuffle(seed).select(range(sample))`, which is the start of numpy's
permutation of the stories. Counts are sums and first appearances are minima, so batches may be counted in any
order and in any number of threads: each carries its stories' positions in the sample with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.base.records import Count
from duckling_data.stages.base import Context, Made, Stage, described
from duckling_data.stages.counts import COUNTS_NAME, TokenCounts, write_counts
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit
from duckling_data.tokens.gpt2 import GPT2

LENGTH_BIN = 16
"""Tokens in a bin of the story-length histogram."""
LENGTH_BINS = 128
"""Bins of that histogram; the last also holds everything longer."""

OFFSET_BITS = 36
"""A first appearance is (position of the story in the sample) << OFFSET_BITS | (token's position in the story)."""
NEVER = np.iinfo(np.int64).max
"""The first appearance of a token that does not occur: later than all others, its story's position too."""


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


def sample_positions(stories: int, settings: CountSettings) -> npt.NDArray[np.int32]:
    """Return, for each story, its position in the sample, or -1 if it is not in it. int32, shape (stories,)."""
    if settings.sample is None:
        return np.arange(stories, dtype=np.int32)
    # As `datasets.Dataset.shuffle(seed)` permutes them.
    chosen = np.random.default_rng(settings.seed).permutation(stories)[: settings.sample]
    positions = np.full(stories, -1, dtype=np.int32)
    positions[chosen] = np.arange(len(chosen))
    return positions


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
        count = np.zeros(GPT2.vocab_size, np.int64)
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
    nearly all are excluded by that one comparison. A value that is out of date excludes fewer tokens and changes no
    result.
    """
    tokens, lengths, own = batch.tokens, batch.lengths, positions[batch.stories]
    sampled = own >= 0
    if not sampled.all():
        tokens, lengths, own = tokens[np.repeat(sampled, lengths)], lengths[sampled], own[sampled]
    tally = Tally(
        count=np.bincount(tokens, minlength=GPT2.vocab_size),
        first=np.full(GPT2.vocab_size, NEVER),
        lengths=np.bincount(np.minimum(lengths // LENGTH_BIN, LENGTH_BINS - 1), minlength=LENGTH_BINS),
        stories=len(own),
        nulls=batch.nulls,
        empty=int(np.count_nonzero(lengths == 0)),
    )
    candidates = np.flatnonzero(np.repeat(own, lengths) < earliest.take(tokens))
    starts = np.cumsum(lengths) - lengths
    story = np.searchsorted(starts, candidates, side="right") - 1
    appearance = (own[story].astype(np.int64) << OFFSET_BITS) | (candidates - starts[story])
    np.minimum.at(tally.first, tokens[candidates], appearance)
    return tally


class LengthHistogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lengths in tokens of the stories counted."""

    bin_tokens: Annotated[int, msgspec.Meta(ge=1)]
    """Tokens in a bin."""
    stories: list[Count]
    """Stories in each bin; empty bins at the end are left out."""


class CountFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is measured while counting."""

    stories: Count
    """Stories of the split."""
    stories_counted: Annotated[int, msgspec.Meta(ge=1)]
    null_stories: Count
    empty_stories_counted: Count
    tokens: Annotated[int, msgspec.Meta(ge=1)]
    """GPT-2 tokens of the stories counted."""
    distinct: Count
    """Distinct ones among them."""
    ids_for_coverage: dict[Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d%$")], Count]
    """How many of the most frequent ids cover a share of the tokens, by the share in percent."""
    story_length_histogram: LengthHistogram
    counts_sha256: str
    """`TokenCounts.digest`."""


def count_tokens(
    encoded: EncodedSplit, settings: CountSettings, reporter: Reporter
) -> tuple[TokenCounts, CountFigures]:
    """Count the split's sample. Raises InputError where the sample holds no token at all."""
    split = encoded.split
    positions = sample_positions(split.stories, settings)
    total = Tally.zero()
    earliest = total.earliest()

    def tally(batch: EncodedBatch) -> tuple[Tally, int]:
        return tally_batch(batch, positions, earliest), batch.read

    with reporter.bar("count", split.stories, "stories") as bar:
        for part, read in encoded.map(tally, wanted=positions >= 0):
            total.add(part)
            earliest[:] = total.earliest()
            bar.update(read)
    counts = total.counts()
    if counts.total == 0:
        raise InputError(f"all {total.stories:,} stories counted are empty: nothing to count.")
    figures = CountFigures(
        stories=split.stories,
        stories_counted=total.stories,
        null_stories=total.nulls,
        empty_stories_counted=total.empty,
        tokens=counts.total,
        distinct=len(counts.gpt2_id),
        ids_for_coverage=counts.ids_for_coverage(),
        story_length_histogram=LengthHistogram(LENGTH_BIN, np.trim_zeros(total.lengths, "b").tolist()),
        counts_sha256=counts.digest(),
    )
    return counts, figures


def occurring_ids(encoded: EncodedSplit, reporter: Reporter) -> npt.NDArray[np.int64]:
    """Return the GPT-2 ids that occur anywhere in the split, ascending."""
    seen = np.zeros(GPT2.vocab_size, bool)
    with reporter.bar("scan", encoded.split.stories, "stories") as bar:
        for ids, read in encoded.map(lambda batch: (np.unique(batch.tokens), batch.read)):
            seen[ids] = True
            bar.update(read)
    return np.flatnonzero(seen)


def _make(context: Context, settings: CountSettings) -> Made[CountFigures]:
    counts, figures = count_tokens(context.encoded["train"], settings, context.reporter)
    context.begin()
    write_counts(context.workspace / COUNTS_NAME, counts)
    return described(context.workspace, COUNTS_NAME), figures


COUNT = Stage(
    name="count", needs=(), outputs=(COUNTS_NAME,), settings=CountSettings, figures=CountFigures,
    inputs=lambda context, settings: {"corpus": context.digests["train"]},
    make=_make,
    summary=lambda made: f"{made.tokens:,} tokens, {made.distinct:,} distinct, of {made.stories_counted:,} stories",
)  # fmt: skip
