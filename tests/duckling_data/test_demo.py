"""The demo stories: the same bytes for everybody, well-formed, and with a coverage curve like TinyStories'."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.corpus.demo import tables as demo_tables
from duckling_data.corpus.demo.generator import BATCH, DEFAULT_STORIES, demo_stories
from duckling_data.tokens.encoders import load_encoder

GOLDEN = {
    "train": "96a5fbb51218e6b6ffe894e4d40df16c77f5c71c1be097155414787225b0944e",
    "validation": "fcb2b3feadb294baaa8a9b2fca6fcfaf25106f55e73114a6699f2f05f746946f",
}
"""SHA-256 of the first 1,000 stories of a split, joined by a zero byte."""

TINYSTORIES = {0.90: 951, 0.95: 1904, 0.99: 4480, 0.995: 5911, 0.999: 10_100}
"""How many ids cover this share of the original sample."""

A = re.compile(r"\ba (?!uni(?!n)|use|one|eu)([aeiou]|hono|hour)", re.IGNORECASE)
AN = re.compile(r"\ban (?!hono|hour)([^aeiou]|uni(?!n)|use|one|eu)", re.IGNORECASE)


@cache
def stories() -> pa.LargeStringArray:
    return demo_stories(0, DEFAULT_STORIES)


@cache
def texts() -> list[str]:
    return [str(text) for text in stories()]


def paragraphs() -> list[str]:
    return [paragraph for text in texts() for paragraph in text.split("\n\n")]


def digest(array: pa.LargeStringArray) -> str:
    return hashlib.sha256("\x00".join(array.to_pylist()).encode()).hexdigest()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_first_thousand_stories_are_golden(split: str) -> None:
    assert digest(demo_stories(0, 1000, split=split)) == GOLDEN[split]


@given(cuts=st.lists(st.integers(0, 50), max_size=6), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=30, deadline=None)
def test_stories_do_not_depend_on_batching(cuts: list[int], seed: int) -> None:
    edges = [0, *sorted(cuts), 50]
    parts = [demo_stories(low, high, seed=seed) for low, high in pairwise(edges)]
    assert pa.concat_arrays(parts).equals(demo_stories(0, 50, seed=seed))


@pytest.mark.parametrize("start", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH - 7])
def test_a_story_is_the_same_wherever_its_batch_begins(start: int) -> None:
    assert demo_stories(start, start + 2 * BATCH).equals(stories().slice(start, 2 * BATCH))


def test_stories_far_out_can_be_made_alone() -> None:
    assert demo_stories(2_119_718, 2_119_719).equals(demo_stories(2_119_000, 2_119_719).slice(718))


def test_the_array_is_large_string_without_nulls() -> None:
    array = demo_stories(3, 700)
    array.validate(full=True)
    assert (array.type, len(array), array.null_count) == (pa.large_string(), 697, 0)


def test_no_stories_are_an_empty_array() -> None:
    array = demo_stories(7, 7)
    assert (array.type, len(array)) == (pa.large_string(), 0)


def test_seeds_and_splits_are_other_streams() -> None:
    streams = [demo_stories(0, 500, seed=seed, split=split) for seed in (0, 1, 2**64 - 1) for split in GOLDEN]
    every = [text for stream in streams for text in stream.to_pylist()]
    assert len(set(every)) == len(every)


def test_threads_get_the_same_bytes() -> None:
    demo_tables._tables.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda low: demo_stories(low, low + 1000), range(0, 8000, 1000)))
    assert pa.concat_arrays(parts).equals(stories().slice(0, 8000))


@pytest.mark.parametrize(
    ("start", "stop", "seed", "split", "named"),
    [
        (-1, 5, 0, "train", "-1"),
        (5, 4, 0, "train", "5 to 4"),
        (0, 1, -1, "train", "seed -1"),
        (0, 1, 2**64, "train", "seed 18446744073709551616"),
        (0, 1, 0, "test", "'test'"),
    ],
)
def test_bad_arguments_are_named_in_one_line(start: int, stop: int, seed: int, split: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        demo_stories(start, stop, seed=seed, split=split)
    assert "\n" not in str(caught.value)


def test_hardly_a_story_comes_twice() -> None:
    assert len(texts()) - len(set(texts())) < DEFAULT_STORIES // 1000


def test_stories_are_plain_letters_without_open_slots() -> None:
    assert set("".join(texts())) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,:!?'\"-\n")


def test_spaces_and_paragraphs_are_regular() -> None:
    wrong = re.compile(r"  | [.,:!?]|\n\n\n|[^\n]\n[^\n]|\A\s|\s\Z")
    assert [text for text in texts() if wrong.search(text)] == []


def test_paragraphs_begin_and_end_as_sentences_with_closed_quotes() -> None:
    whole = re.compile(r'"?[A-Z].*[.!?]"?', re.DOTALL)
    assert [text for text in paragraphs() if not whole.fullmatch(text) or text.count('"') % 2] == []


def test_sentences_begin_with_a_capital() -> None:
    assert [text for text in texts() if re.search(r"[.!?] [a-z]", text)] == []


def test_articles_agree_with_the_next_sound() -> None:
    assert [text for text in texts() if A.search(text) or AN.search(text)] == []


def test_pronouns_agree_with_the_hero() -> None:
    opening = re.compile(r"there was an? \w+ (girl|boy) named \w+\. (He|She) ")
    found = {match.groups() for text in texts() if (match := opening.search(text))}
    assert found == {("girl", "She"), ("boy", "He")}


def test_coverage_follows_tinystories() -> None:
    batch = load_encoder().encode_batch(stories())
    counts = np.sort(np.bincount(batch.tokens))[::-1]
    assert np.count_nonzero(counts) >= 7000
    assert 200 <= len(batch.tokens) / len(stories()) <= 240
    assert batch.lengths.min() >= 50
    assert batch.lengths.max() <= 900
    covered = np.cumsum(counts) / counts.sum()
    ids = {share: int(np.searchsorted(covered, share)) + 1 for share in TINYSTORIES}
    for share, target in TINYSTORIES.items():
        room = 0.25 if share == 0.999 else 0.10
        assert abs(ids[share] / target - 1) <= room, ids
