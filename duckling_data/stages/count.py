"""Stage `count`: how often each GPT-2 token occurs in a sample of the stories, and in which order they first appear.

The sample is the original's: `dataset.shuffle(seed).select(range(sample))`, which is the start of numpy's
permutation of the stories.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.base.records import Count
from duckling_data.corpus.splits import Stretch, stretch
from duckling_data.stages.base import Context, Made, Stage, described
from duckling_data.stages.counts import COUNTS_NAME, TokenCounts, write_counts
from duckling_data.stages.shards import Task
from duckling_data.stages.tally import LENGTH_BIN, ShardTally, Tally, tally_stories
from duckling_data.tokens.encoding import EncodedSplit, Encoding, shared_pool

MOST_STORIES = np.iinfo(np.int32).max
"""Stories of a split, at most."""


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
    """Return, for each story, its position in the sample, or -1 if it is not in it. int32, shape (stories,).

    Raises InputError for more than MOST_STORIES.
    """
    if stories > MOST_STORIES:
        raise InputError(f"{stories:,} stories, expected at most {MOST_STORIES:,}; build from a part of them.")
    if settings.sample is None:
        return np.arange(stories, dtype=np.int32)
    # As `datasets.Dataset.shuffle(seed)` permutes them.
    chosen = np.random.default_rng(settings.seed).permutation(stories)[: settings.sample]
    positions = np.full(stories, -1, dtype=np.int32)
    positions[chosen] = np.arange(len(chosen))
    return positions


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
    with reporter.bar("count", split.stories, "stories") as bar:
        total = tally_stories(encoded, sample_positions(split.stories, settings), bar.update)
    return total.counts(), count_figures(total, split.stories)


def count_figures(total: Tally, stories: int) -> CountFigures:
    """Return the figures of the whole sample's tally. Raises InputError where it holds no token at all."""
    counts = total.counts()
    if counts.total == 0:
        raise InputError(f"all {total.stories:,} stories counted are empty: nothing to count.")
    return CountFigures(
        stories=stories,
        stories_counted=total.stories,
        null_stories=total.nulls,
        empty_stories_counted=total.empty,
        tokens=counts.total,
        distinct=len(counts.gpt2_id),
        ids_for_coverage=counts.ids_for_coverage(),
        story_length_histogram=LengthHistogram(LENGTH_BIN, np.trim_zeros(total.lengths, "b").tolist()),
        counts_sha256=counts.digest(),
    )


def occurring_ids(encoded: EncodedSplit, reporter: Reporter) -> npt.NDArray[np.int64]:
    """Return the GPT-2 ids that occur anywhere in the split, ascending."""
    seen = np.zeros(encoded.base.vocab_size, bool)
    with reporter.bar("scan", encoded.split.stories, "stories") as bar:
        for ids, read in encoded.map(lambda batch: (np.unique(batch.tokens), batch.read)):
            seen[ids] = True
            bar.update(read)
    return np.flatnonzero(seen)


def tally_shard(part: Stretch, stories: int, settings: CountSettings, encoder: Encoding, workers: int) -> ShardTally:
    """Return the tally of a part of a split that has `stories` stories in all."""
    encoded = EncodedSplit(part.here(), shared_pool(encoder), workers)
    return ShardTally.of(tally_stories(encoded, sample_positions(stories, settings)))


def tally_tasks(context: Context, settings: CountSettings) -> list[Task[ShardTally]]:
    """Return the tasks that count the sample of the split `train`, one a shard."""
    sharding, split = context.sharding, context.splits["train"]
    assert sharding is not None
    parts = [stretch(split, number, sharding.shards) for number in range(sharding.shards)]
    return [
        Task(
            sharding.folder() / f"tally-{sharding.shard_name(number)}",
            partial(tally_shard, part, split.stories, settings, sharding.encoder, sharding.workers),
            ShardTally,
            part.stories,
        )
        for number, part in enumerate(parts)
    ]


def count_shards(context: Context, settings: CountSettings, *, main: bool) -> Tally:
    """Return the tally of the split `train`, counted in shards. `main` as in `Sharding.results`."""
    total = Tally.zero(context.base)
    assert context.sharding is not None
    with context.reporter.bar("count", context.splits["train"].stories, "stories") as bar:
        for part in context.sharding.results(tally_tasks(context, settings), bar, main=main):
            total.add(part.tally(context.base))
    return total


def _make(context: Context, settings: CountSettings) -> Made[CountFigures]:
    if context.sharding is None:
        counts, figures = count_tokens(context.encoded["train"], settings, context.reporter)
    else:
        total = count_shards(context, settings, main=True)
        counts, figures = total.counts(), count_figures(total, context.splits["train"].stories)
    context.begin()
    write_counts(context.workspace / COUNTS_NAME, counts, context.base)
    return described(context.workspace, COUNTS_NAME), figures


COUNT = Stage(
    name="count", needs=(), outputs=(COUNTS_NAME,), settings=CountSettings, figures=CountFigures,
    inputs=lambda context, settings: {"corpus": context.digests["train"]} | context.base_input(),
    make=_make,
    summary=lambda made: f"{made.tokens:,} tokens, {made.distinct:,} distinct, of {made.stories_counted:,} stories",
    shards=tally_tasks,
)  # fmt: skip
