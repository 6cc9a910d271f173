"""Tokens that a workspace keeps: what is made of them is the same as without, and what is damaged is never used."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers.blocks import Block
from duckling_data.tokens import kept as kept_module
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit, EncoderPool
from duckling_data.tokens.kept import DamagedTokens
from duckling_data.tokens.store import INDEX, KEPT, TokenIndex, TokenStore
from tests.support.data import snapshot

STORIES = 120
SAID = "not as it was written; removed, and the stories encoded again"


@dataclass
class CountedSplit:
    """Demo stories, every seventh of them null, in blocks of any size; it knows how often it was read."""

    block: int = 40
    stories: int = STORIES
    text_bytes: int = STORIES * 900
    reads: int = 0

    def describe(self) -> dict[str, Any]:
        return {}

    def identity(self) -> object:
        return "demo"

    def blocks(self) -> Iterator[Block]:
        self.reads += 1
        for start in range(0, STORIES, self.block):
            stop = min(start + self.block, STORIES)
            yield Block(stop - start, partial(with_nulls, start, stop))


def with_nulls(start: int, stop: int) -> pa.Array:
    texts = demo_stories(start, stop).to_pylist()
    return pa.array([None if n % 7 == 3 else text for n, text in enumerate(texts, start)], pa.large_string())


@pytest.fixture(scope="module")
def pool() -> EncoderPool:
    return EncoderPool("gigatoken")


@pytest.fixture(scope="module")
def expected(pool: EncoderPool) -> tuple[list[int], ...]:
    return passed(EncodedSplit(CountedSplit(), pool, workers=1))


@pytest.fixture(scope="module")
def kept_once(pool: EncoderPool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that keeps the tokens of a CountedSplit, in several segments."""
    workspace = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_module, "SEGMENT_BYTES", 1)
        passed(opened(workspace, pool))
    assert len(list((workspace / KEPT / "train").iterdir())) == 4
    return workspace


def opened(
    workspace: Path, pool: EncoderPool, split: CountedSplit | None = None, workers: int = 2,
    say: Callable[[str], None] = print, source: str = "digest",
) -> EncodedSplit:  # fmt: skip
    store = TokenStore(workspace, "train", {"source": source} | pool.made_from(), pool.base.vocab_size, say)
    return EncodedSplit(split or CountedSplit(), pool, workers, store=store)


def passed(encoded: EncodedSplit, *, last: bool = False) -> tuple[list[int], ...]:
    """All that a pass gives: stories, lengths, tokens, and how many were read and null."""
    batches: list[EncodedBatch] = list(encoded.map(lambda batch: batch, last=last))
    joined = [np.concatenate([getattr(b, name) for b in batches]).tolist() for name in ("stories", "lengths", "tokens")]
    return *joined, [sum(batch.read for batch in batches), sum(batch.nulls for batch in batches)]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("last", [False, True])
def test_the_next_command_reads_no_story_and_gets_the_same(
    pool: EncoderPool, expected: tuple[list[int], ...], tmp_path: Path, workers: int, last: bool
) -> None:
    split = CountedSplit()
    assert passed(opened(tmp_path, pool, split, workers), last=last) == expected
    again = opened(tmp_path, pool, split, workers)
    assert passed(again) == passed(again, last=True) == passed(again) == expected
    assert split.reads == 1


@pytest.mark.parametrize("other", ["source", "encoder"])
def test_tokens_of_something_else_are_not_used_and_replaced_by_whole_ones(
    pool: EncoderPool, expected: tuple[list[int], ...], kept_once: Path, tmp_path: Path, other: str
) -> None:
    workspace = Path(shutil.copytree(kept_once, tmp_path / "w"))
    before = snapshot(workspace)
    split = CountedSplit()
    pools = EncoderPool("tokenizers") if other == "encoder" else pool
    encoded = opened(workspace, pools, split, source="another" if other == "source" else "digest")
    for _ in encoded.map(lambda batch: batch):
        break  # such as a refusal of what is read
    assert snapshot(workspace) == before
    assert passed(encoded) == passed(encoded, last=True) == expected
    assert split.reads == 2
    assert snapshot(workspace).keys() == {f"{KEPT}/train/{name}" for name in ("00000", INDEX)}


def test_what_broke_off_keeps_nothing(pool: EncoderPool, tmp_path: Path) -> None:
    passing = opened(tmp_path, pool).map(lambda batch: batch)
    next(passing)
    assert [path.name for path in (tmp_path / KEPT).iterdir()] == ["train.partial"]
    passing.close()  # type: ignore[attr-defined]
    assert list((tmp_path / KEPT).iterdir()) == []


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "another's": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", ["00000", "00002", INDEX])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("block", [40, 64])
def test_damaged_tokens_are_named_and_the_stories_encoded_again(
    pool: EncoderPool, expected: tuple[list[int], ...], kept_once: Path, tmp_path: Path, name: str, damage: str,
    block: int,
) -> None:  # fmt: skip
    workspace = Path(shutil.copytree(kept_once, tmp_path / "w"))
    path = workspace / KEPT / "train" / name
    DAMAGES[damage](path)
    said: list[str] = []
    split = CountedSplit(block)  # another version of Duckling may read other blocks
    assert passed(opened(workspace, pool, split, say=said.append)) == expected
    assert said == [f"tokens       {path}: {SAID}"]
    assert split.reads == 1
    assert passed(opened(workspace, pool, split, say=said.append)) == expected
    assert len(said) == 1


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_is_found(
    pool: EncoderPool, expected: tuple[list[int], ...], kept_once: Path, data: st.DataObject
) -> None:
    folder = kept_once / KEPT / "train"
    contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    path = data.draw(st.sampled_from(list(contents)))
    at = data.draw(st.integers(0, 8 * len(contents[path]) - 1))
    flipped = bytearray(contents[path])
    flipped[at // 8] ^= 1 << at % 8
    path.write_bytes(flipped)
    said: list[str] = []
    try:
        assert passed(opened(kept_once, pool, say=said.append)) == expected
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            name.write_bytes(content)
    assert said == [f"tokens       {path}: {SAID}"]


HOSTILE: dict[str, dict[str, int]] = {
    "more than there is": {"size": 1 << 40},
    "a file that is not there": {"segment": 1 << 40},
    "more lengths than bytes": {"stories": 40, "size": 8, "crc32c": 0},
    "behind the end": {"offset": 1 << 40},
}


@pytest.mark.parametrize("change", HOSTILE)
def test_an_index_that_was_written_by_somebody_else_is_not_believed(
    pool: EncoderPool, expected: tuple[list[int], ...], kept_once: Path, tmp_path: Path, change: str
) -> None:
    workspace = Path(shutil.copytree(kept_once, tmp_path / "w"))
    path = workspace / KEPT / "train" / INDEX
    record = msgspec.json.decode(path.read_bytes(), type=TokenIndex)
    batch = msgspec.structs.replace(record.batches[1], **HOSTILE[change])
    if change == "more lengths than bytes":
        data = (workspace / KEPT / "train" / f"{batch.segment:05d}").read_bytes()[: batch.size]
        batch = msgspec.structs.replace(batch, crc32c=google_crc32c.value(data))
    record = msgspec.structs.replace(record, batches=[record.batches[0], batch, *record.batches[2:]])
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, record_sha256=record.digest())))
    said: list[str] = []
    assert passed(opened(workspace, pool, say=said.append)) == expected
    assert said == [f"tokens       {path.with_name(f'{batch.segment:05d}')}: {SAID}"]


def test_ids_of_a_larger_vocabulary_are_not_believed(pool: EncoderPool, tmp_path: Path) -> None:
    passed(opened(tmp_path, pool))
    kept = TokenStore(tmp_path, "train", {"source": "digest"} | pool.made_from(), 1000, print).find(STORIES)
    assert kept is not None
    with pytest.raises(DamagedTokens):
        kept.read(0)
