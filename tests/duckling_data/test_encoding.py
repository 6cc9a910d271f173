"""A split is read and encoded at most once where its tokens are kept, and gives the same tokens either way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers.blocks import Block
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit, EncoderPool

STORIES = 300


@dataclass
class CountedSplit:
    """Demo stories that know how often they were read."""

    stories: int = STORIES
    text_bytes: int = STORIES * 900
    reads: list[int] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {}

    def identity(self) -> object:
        return "demo"

    def blocks(self) -> Iterator[Block]:
        self.reads.append(1)
        for start in range(0, STORIES, 40):
            stop = min(start + 40, STORIES)
            yield Block(stop - start, partial(demo_stories, start, stop))


def joined(batches: list[EncodedBatch]) -> tuple[list[int], list[int], list[int]]:
    return (
        np.concatenate([batch.stories for batch in batches]).tolist(),
        np.concatenate([batch.lengths for batch in batches]).tolist(),
        np.concatenate([batch.tokens for batch in batches]).tolist(),
    )


@pytest.fixture(scope="module")
def pool() -> EncoderPool:
    return EncoderPool("gigatoken")


@pytest.mark.parametrize("workers", [1, 3])
def test_kept_tokens_are_the_same_and_the_split_is_read_once(pool: EncoderPool, tmp_path: Path, workers: int) -> None:
    split = CountedSplit()
    encoded = EncodedSplit(split, pool, workers, keep_in=tmp_path)
    first = joined(list(encoded.map(lambda batch: batch)))
    second = joined(list(encoded.map(lambda batch: batch)))
    assert first == second
    assert first[0] == list(range(STORIES))
    assert split.reads == [1]
    assert list(tmp_path.iterdir()) == []  # the temporary file has no name to be left behind


def test_without_keeping_the_split_is_read_each_time(pool: EncoderPool) -> None:
    split = CountedSplit()
    encoded = EncodedSplit(split, pool, workers=2)
    assert joined(list(encoded.map(lambda batch: batch))) == joined(list(encoded.map(lambda batch: batch)))
    assert split.reads == [1, 1]


def test_only_wanted_stories_are_encoded(pool: EncoderPool) -> None:
    wanted = np.zeros(STORIES, bool)
    wanted[[3, 41, 42, 299]] = True
    encoded = EncodedSplit(CountedSplit(), pool, workers=2)
    everything = list(encoded.map(lambda batch: batch))
    some = list(encoded.map(lambda batch: batch, wanted))
    assert joined(some)[0] == [3, 41, 42, 299]
    lengths = joined(everything)[1]
    assert joined(some)[1] == [lengths[index] for index in (3, 41, 42, 299)]
    assert sum(batch.read for batch in some) == STORIES


def test_a_pass_that_broke_off_is_not_taken_for_the_whole(pool: EncoderPool, tmp_path: Path) -> None:
    split = CountedSplit()
    encoded = EncodedSplit(split, pool, workers=2, keep_in=tmp_path)
    for _ in encoded.map(lambda batch: batch):
        break
    assert joined(list(encoded.map(lambda batch: batch)))[0] == list(range(STORIES))
    assert split.reads == [1, 1]
