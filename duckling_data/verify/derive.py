"""What the stages made, derived again and compared: counts from stories, the mapping from counts, rows from both.

One encoder encodes every story; the other encodes a sample of them, and must give the same ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from duckling_data.base.progress import Reporter
from duckling_data.base.records import changed, plain
from duckling_data.corpus.splits import Corpus
from duckling_data.rows.layout import POSITION
from duckling_data.rows.read import StoredRows
from duckling_data.stages.count import CountFigures, CountSettings, count_tokens, occurring_ids
from duckling_data.stages.counts import COLUMNS, COUNTS_NAME, read_counts
from duckling_data.stages.packer import DATASET_NAMES, PackFigures, PackSettings, SplitFigures, SplitPacker
from duckling_data.stages.vocab import GivenSettings, VocabFigures, VocabSettings, build_mapping, mapping_figures
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.encoding import EncodedSplit, EncoderPool
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import DECOMPOSE, MAPPING_FILE, SIZES, TokenMapping, open_mapping

SAMPLE_STORIES = 3000
"""Stories of a split that the other encoder encodes, too."""


@dataclass(frozen=True)
class Stories:
    """The stories that everything is derived from again, and what encodes them."""

    corpus: Corpus
    workers: int
    reporter: Reporter
    main: str
    """The encoder of every story."""
    other: str | None
    """The encoder of a sample; None where `main` is already the other one, or the only one that is exact."""
    base: BaseTokenizer = GPT2
    """What the tokens are of."""
    _pools: dict[str, EncoderPool] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.main + (f", a sample also by {self.other}" if self.other else "")

    def encoded(self, split: str, encoder: str | None = None) -> EncodedSplit:
        """Return a split's tokens, by `main` unless another encoder is named."""
        kind = encoder or self.main
        pool = self._pools.setdefault(kind, EncoderPool(kind, self.base))
        return EncodedSplit(self.corpus.splits()[split], pool, self.workers)


def count_faults(workspace: Path, settings: CountSettings, figures: CountFigures, stories: Stories) -> Iterator[str]:
    """Yield what of the counts and their figures is not as the stories give it."""
    found = read_counts(workspace / COUNTS_NAME, stories.base).rows
    counts, derived = count_tokens(stories.encoded("train"), settings, stories.reporter)
    expected, shared = counts.rows, min(len(found), len(counts.rows))
    differing = np.argwhere(found[:shared] != expected[:shared])
    if len(differing):
        row, column = differing[0]
        ids = f"found {found[row, column]}, expected {expected[row, column]}"
        yield f"{COUNTS_NAME} row {row:,} column {list(COLUMNS)[column]}: {ids}"
    elif len(found) != len(expected):
        yield f"{COUNTS_NAME} has {len(found):,} rows, expected {len(expected):,}"
    else:
        yield from figure_faults(COUNTS_NAME, derived, figures)


def mapping_faults(
    workspace: Path, settings: VocabSettings | GivenSettings, figures: VocabFigures, stories: Stories
) -> Iterator[str]:
    """Yield what of the mapping and its figures is not as the counts give it; one of the user's own is only read."""
    found, base = open_mapping(workspace / MAPPING_FILE, stories.base)
    if isinstance(settings, GivenSettings):
        return
    counts = read_counts(workspace / COUNTS_NAME, base)
    all_ids = occurring_ids(stories.encoded("train"), stories.reporter) if settings.unk == DECOMPOSE else None
    expected = build_mapping(counts, settings, all_ids, base)
    for key in (*SIZES, "unk_policy"):
        if found.get(key) != expected.get(key):
            yield f"{MAPPING_FILE} has {key} {found.get(key)}, expected {expected.get(key)}"
            return
    kind = "GPT-2" if base is GPT2 else "base"
    for compact, (here, there) in enumerate(zip(found["live_token_ids"], expected["live_token_ids"], strict=True)):
        if here != there:
            yield f"{MAPPING_FILE} compact id {compact}: found {kind} id {here}, expected {there}, the counts' next"
            return
    yield from figure_faults(MAPPING_FILE, mapping_figures(expected, counts), figures)


def pack_faults(workspace: Path, settings: PackSettings, figures: PackFigures, stories: Stories) -> Iterator[str]:
    """Yield the first difference of each split's rows and figures from what the stories give."""
    mapping = open_mapping(workspace / MAPPING_FILE, stories.base)[0]
    for split, recorded in figures.splits.items():
        stored = StoredRows(workspace / DATASET_NAMES[split])
        if (stored.positions is not None) != settings.positions:
            there = "no" if stored.positions is None else "a"
            yield f"{stored.name} has {there} column {POSITION}, manifest.json says positions {settings.positions}"
            continue
        packer = SplitPacker(stories.encoded(split), mapping, settings)
        yield from islice(_split_faults(split, stored, recorded, packer, stories, mapping), 1)


def _split_faults(
    split: str, stored: StoredRows, recorded: SplitFigures, packer: SplitPacker, stories: Stories, mapping: TokenMapping
) -> Iterator[str]:
    made, live = 0, mapping["live_tokens"]
    with stories.reporter.bar(f"verify {split} rows", recorded.stories, "stories") as bar:
        for batch in packer.batches():
            if (difference := stored.difference(made, batch.rows, batch.positions)) is not None:
                yield difference
            made += len(batch.rows)
            bar.update(len(batch.lengths))
    if stored.max_id() >= live:
        yield f"{stored.name}: has id {stored.max_id()}, a dead one; expected ids below {live}"
    if len(stored) > made:
        yield f"{stored.where(made)} was added, the stories give {made:,} rows"
    with stories.reporter.bar(f"hash {split}", len(stored), "rows") as bar:
        digests = stored.payload_sha256(bar.update), stored.positions.payload_sha256() if stored.positions else None
    apart = recorded.split_tokens is not None
    yield from figure_faults(f"the {split} split", packer.sums.figures(mapping, *digests, apart=apart), recorded)
    yield from encoder_faults(split, stories)


def encoder_faults(split: str, stories: Stories) -> Iterator[str]:
    """Yield each of a split's sampled stories that the two encoders encode otherwise: the same sample every time."""
    if stories.other is None:
        return
    count = stories.corpus.splits()[split].stories
    wanted = np.zeros(count, bool)
    wanted[np.random.default_rng(0).choice(count, min(count, SAMPLE_STORIES), replace=False)] = True
    by_main, by_other = (
        stories.encoded(split, encoder).map(lambda batch: batch, wanted) for encoder in (None, stories.other)
    )
    with stories.reporter.bar(f"verify {split} encoders", count, "stories") as bar:
        for one, two in zip(by_main, by_other, strict=True):
            bar.update(one.read)
            parts = (np.split(batch.tokens, np.cumsum(batch.lengths)[:-1]) for batch in (one, two))
            for story, ours, theirs in zip(one.stories.tolist(), *parts, strict=False):
                if not np.array_equal(ours, theirs):
                    same = int(np.argmin(np.append(ours[: len(theirs)] == theirs[: len(ours)], False)))
                    yield (
                        f"story {story:,} of the {split} split: after {same} equal tokens {stories.main} gives "
                        f"{ours[same:][:3].tolist()}, {stories.other} {theirs[same:][:3].tolist()}"
                    )


def figure_faults(what: str, derived: msgspec.Struct, recorded: msgspec.Struct) -> Iterator[str]:
    """Yield each recorded figure that is not the one derived."""
    there, here = plain(recorded), plain(derived)
    for name in changed(there, here):
        yield f"{what}: manifest.json has {name} {there.get(name)}, expected {here.get(name)}"
