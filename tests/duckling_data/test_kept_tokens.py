"""Tokens that a workspace keeps: what is made of them is the same as without, and what is damaged is never used."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckling_data.base import disk as base_disk
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers.blocks import Block
from duckling_data.tokens import kept as kept_module
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit, EncoderPool
from duckling_data.tokens.store import INDEX, KEPT, TokenStore
from tests.support.data import SMALL, Cli, snapshot, write_jsonl

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
    store = TokenStore(workspace, "train", {"source": source} | pool.made_from(), pool.vocab_size, say)
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


def apart(workspace: Path) -> dict[str, str]:
    """The digests of all files but the kept tokens."""
    return {name: digest for name, digest in snapshot(workspace).items() if not name.startswith(KEPT)}


@pytest.mark.parametrize("sample", ["all", "25"])
def test_two_commands_make_the_same_files_with_and_without(
    cli: Cli, stories: Path, tmp_path: Path, sample: str
) -> None:
    source = ("--source", stories, "--validation-share", "0.2", "--sample", sample, *SMALL[2:6])
    for name, options in (("with", ()), ("without", ("--no-keep-tokens",))):
        for command in (("build-vocab", *source), ("pack", "--ctx", "32")):
            assert cli(*command, "-w", tmp_path / name, *options).exit_code == 0
    assert apart(tmp_path / "with") == snapshot(tmp_path / "without")
    kept = {name for name in snapshot(tmp_path / "with") if name.startswith(KEPT)}
    assert kept == {f"{KEPT}/{split}/{file}" for split in ("train", "validation") for file in ("00000", INDEX)}
    for listed in ("manifest.json", "SHA256SUMS"):
        assert KEPT not in (tmp_path / "with" / listed).read_text()
    assert cli("verify", "-w", tmp_path / "with").exit_code == 0


def test_other_rows_are_made_of_the_kept_tokens_after_damage_too(cli: Cli, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "other")
    segment = made / KEPT / "train" / "00000"
    segment.write_bytes(segment.read_bytes()[:-2])
    done = cli("pack", "-w", made, "--ctx", "16", "--positions")
    assert f"{segment}: {SAID}\n" in done.stderr
    assert cli("pack", "-w", tmp_path / "other", "--ctx", "16", "--positions").exit_code == 0
    assert apart(made) == apart(tmp_path / "other")
    assert "damage" not in cli("pack", "-w", made, "--ctx", "8").stderr


def test_they_go_with_their_split_their_source_and_on_demand(cli: Cli, demo: Path, tmp_path: Path) -> None:
    assert "kept: train, validation [" in cli("status", "-w", demo).stdout
    kept = snapshot(demo / KEPT)
    assert cli("pack", "-w", demo, "--dry-run", "--no-keep-tokens", "--ctx", "16").exit_code == 0
    (demo / KEPT / "train.partial").mkdir()  # of a command that was killed
    write_jsonl(tmp_path / "s.jsonl", demo_stories(0, 40).to_pylist())
    assert cli("pack", "-w", demo, "--source", tmp_path / "s.jsonl").exit_code == 0
    assert [path.name for path in (demo / KEPT).iterdir()] == ["train"]
    assert snapshot(demo / KEPT)["train/00000"] != kept["train/00000"]
    assert cli("status", "-w", demo, "--no-keep-tokens").exit_code == 2
    assert cli("download", "-w", demo, "--no-keep-tokens").exit_code == 0
    assert not (demo / KEPT).exists()
    assert "kept" not in cli("status", "-w", demo).stdout


@pytest.mark.parametrize("where", [KEPT, f"{KEPT}/train"])
def test_nothing_is_kept_or_removed_through_a_link(cli: Cli, made: Path, tmp_path: Path, where: str) -> None:
    (made / where).rename(tmp_path / "elsewhere")
    (made / where).symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path / "elsewhere")
    done = cli("pack", "-w", made, "--ctx", "16")
    assert done.exit_code == 2
    assert f"{made / where}: a link to {tmp_path / 'elsewhere'}, expected a folder" in done.stderr
    assert snapshot(tmp_path / "elsewhere") == before


def test_room_is_asked_for_tokens_and_rows(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = demo_stories(0, 40).to_pylist()
    write_jsonl(tmp_path / "s.jsonl", texts)
    size = (tmp_path / "s.jsonl").stat().st_size // 4 * 2

    def leave(free: int) -> None:
        monkeypatch.setattr(base_disk, "free_bytes", lambda path: free)

    command = ("pack", "-w", tmp_path / "w", "--source", tmp_path / "s.jsonl", *SMALL)
    leave(size - 1)
    done = cli(*command)
    assert done.exit_code == 3
    assert "KB for the tokens that are kept, " in done.stderr
    assert "free; free some or give --no-keep-tokens, or choose another --workspace." in done.stderr
    leave(size)
    assert cli(*command).exit_code == 0  # the tokens are there, and the rows fit, too
    shutil.rmtree(tmp_path / "w" / KEPT)
    rows = sum(path.stat().st_size for path in (tmp_path / "w" / "tokenized_dataset").glob("*.arrow"))
    leave(rows)
    assert "for the packed rows" in cli("pack", "-w", tmp_path / "w", "--ctx", "16").stderr
    leave(rows + size + 4096)
    assert cli("pack", "-w", tmp_path / "w", "--ctx", "16").exit_code == 0


def test_a_source_compressed_otherwise_is_another(cli: Cli, made: Path, stories: Path) -> None:
    packed = stories.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(stories.read_bytes(), mtime=0))
    before = apart(made / "tokenized_dataset")
    assert cli("pack", "-w", made, "--source", packed).exit_code == 0
    assert apart(made / "tokenized_dataset") == before
