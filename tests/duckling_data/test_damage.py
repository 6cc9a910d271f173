"""Damage to any file of a workspace is found by `verify`, named by the file, and never used by a later stage.

The matrix: every file that a workspace holds (outputs, manifest, sums, source record) and every source file, times
every kind of damage.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from duckling_data.base.errors import CheckFailed
from duckling_data.base.progress import Reporter
from duckling_data.corpus.demo import demo_stories
from duckling_data.rows.write import ROWS_PER_SHARD, RowWriter
from duckling_data.verify import VerifyRequest, verify_workspace
from duckling_data.workspace.manifest import Manifest
from duckling_data.workspace.sums import write_sums
from tests.duckling_data.conftest import Cli, build, rows_of, snapshot, write_jsonl

SHARDS = [f"tokenized_dataset/data-{number:05d}-of-00002.arrow" for number in (0, 1)]
OUTPUTS = [
    "token_counts.parquet", "token_mapping.json", *SHARDS,
    "tokenized_dataset/dataset_info.json", "tokenized_dataset/state.json",
]  # fmt: skip
SOURCES = ["one.jsonl", "two.jsonl"]
RECORDS = ["manifest.json", "SHA256SUMS", "corpus/source.json"]
FLIPS = 20
"""Bits flipped in each file, one at a time: the first, the last, and some between."""


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two shards of rows and, so that a copy has its own, the source's files in it."""
    workspace = tmp_path_factory.mktemp("damage") / "w"
    workspace.mkdir()
    texts = demo_stories(0, 700).to_pylist()
    for name, part in zip(SOURCES, (texts[:300], texts[300:]), strict=True):
        write_jsonl(workspace / name, part)
    build(workspace, *(workspace / name for name in SOURCES), sample="all", live=300, dead=20, ctx=2)
    write_sums(workspace)
    assert ROWS_PER_SHARD < len(rows_of(workspace)) < 2 * ROWS_PER_SHARD
    return workspace


@pytest.fixture
def workspace(once: Path) -> Iterator[Path]:
    """The workspace itself, which the test puts back as it was."""
    before = snapshot(once)
    yield once
    assert snapshot(once) == before


def fault(workspace: Path) -> str:
    """What `verify` names, its first line apart; fails where it finds nothing."""
    with pytest.raises(CheckFailed) as found:
        list(verify_workspace(VerifyRequest(workspace, workers=1), Reporter(quiet=True)))
    return "\n".join(str(found.value).splitlines()[1:]) or str(found.value)


def while_damaged(path: Path, content: bytes | None, then: Callable[[], str]) -> str:
    """What `then` gives while the file holds something else, or is not there."""
    good = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        return then()
    finally:
        path.write_bytes(good)


def flipped(content: bytes, count: int) -> Iterator[bytes]:
    """The content with one bit flipped, at `count` places."""
    draw = random.Random(0)
    inner = [draw.randrange(len(content)) for _ in range(count - 2)]
    for place in (0, *inner, len(content) - 1):
        bad = bytearray(content)
        bad[place] ^= 1 << draw.randrange(8)
        yield bytes(bad)


def test_the_workspace_passes_before_it_is_damaged(workspace: Path) -> None:
    lines = list(verify_workspace(VerifyRequest(workspace, workers=1), Reporter(quiet=True)))
    assert [line.split()[1] for line in lines] == ["ok:"] * 5
    assert set(Manifest(workspace).stages["pack"].outputs) | set(OUTPUTS[:2]) == set(OUTPUTS)


def named(name: str, said: str) -> bool:
    """Whether the fault names the file. A damaged manifest or list of sums is named together with the other."""
    return name in said if name not in RECORDS[:2] else RECORDS[0] in said or RECORDS[1] in said


@pytest.mark.parametrize("name", [*OUTPUTS, *SOURCES, *RECORDS])
def test_one_flipped_bit_anywhere_is_found_and_named(workspace: Path, name: str) -> None:
    path = workspace / name
    for content in flipped(path.read_bytes(), FLIPS):
        assert named(name, while_damaged(path, content, lambda: fault(workspace)))


@pytest.mark.parametrize("name", [*OUTPUTS, *SOURCES, *RECORDS])
def test_a_truncated_tail_is_found_and_named(workspace: Path, name: str) -> None:
    good = (workspace / name).read_bytes()
    for keep in (0, 1, len(good) // 2, len(good) - 8, len(good) - 2):
        assert named(name, while_damaged(workspace / name, good[:keep], lambda: fault(workspace))), keep


@pytest.mark.parametrize("name", [*OUTPUTS, *SOURCES, *RECORDS[:1]])
def test_a_longer_file_is_found_and_named(workspace: Path, name: str) -> None:
    good = (workspace / name).read_bytes()
    for more in (b"\0", b"\n", good[-64:]):
        assert named(name, while_damaged(workspace / name, good + more, lambda: fault(workspace))), more


@pytest.mark.parametrize("name", [*OUTPUTS, *SOURCES, "corpus/source.json"])
def test_a_removed_file_is_found_and_named(workspace: Path, name: str) -> None:
    assert name in while_damaged(workspace / name, None, lambda: fault(workspace))


@pytest.mark.parametrize("pair", [SHARDS, SOURCES, OUTPUTS[4:]])
def test_two_files_in_each_others_place_are_both_named(workspace: Path, pair: list[str]) -> None:
    one, other = (workspace / name for name in pair)
    first, second = one.read_bytes(), other.read_bytes()
    said = while_damaged(one, second, lambda: while_damaged(other, first, lambda: fault(workspace)))
    assert pair[0] in said
    assert pair is SOURCES or pair[1] in said


@pytest.mark.parametrize("name", ["tokenized_dataset/data-00002-of-00003.arrow", "tokenized_dataset/deep/er.txt"])
def test_an_added_file_is_found_and_named(workspace: Path, name: str) -> None:
    path = workspace / name
    path.parent.mkdir(exist_ok=True)
    shutil.copy(workspace / SHARDS[0], path)
    said = fault(workspace)
    shutil.rmtree(path.parent) if path.parent.name == "deep" else path.unlink()
    assert said == f"pack: {name} was added: `duckling-data pack` did not make it"


def test_rows_of_another_split_that_the_source_does_not_have_are_found(workspace: Path) -> None:
    shutil.copytree(workspace / "tokenized_dataset", workspace / "tokenized_validation")
    said = fault(workspace)
    shutil.rmtree(workspace / "tokenized_validation")
    assert "pack: tokenized_validation/data-00000-of-00002.arrow was added" in said


def test_what_datasets_caches_in_the_folder_is_no_damage(workspace: Path) -> None:
    cache = workspace / "tokenized_dataset/cache-0123456789abcdef.arrow"
    shutil.copy(workspace / SHARDS[0], cache)
    list(verify_workspace(VerifyRequest(workspace, workers=1), Reporter(quiet=True)))
    cache.unlink()


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_row_more_or_less_is_found_and_named(once: Path, tmp_path: Path, change: str) -> None:
    shutil.copytree(once / "tokenized_dataset", tmp_path / "good")
    rows = rows_of(once)
    with RowWriter(once / "tokenized_dataset", rows.shape[1], "train") as writer:
        writer.write(np.concatenate([rows, rows[-1:]]) if change == "added" else rows[:-1])
    writer.put_in_place()
    said = fault(once)
    shutil.rmtree(once / "tokenized_dataset")
    shutil.copytree(tmp_path / "good", once / "tokenized_dataset")
    assert f"pack: {SHARDS[1]} has " in said
    assert SHARDS[0] not in said


# What is damaged is not used


def packed_with(cli: Cli, workspace: Path, *options: str) -> str:
    """What `pack` says while it refuses; fails where it goes on."""
    result = cli("pack", "-w", workspace, *options)
    assert result.exit_code in (1, 2), (result.exit_code, result.stderr)
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_a_damaged_mapping_is_never_packed_with(cli: Cli, workspace: Path) -> None:
    path = workspace / "token_mapping.json"
    for content in flipped(path.read_bytes(), FLIPS):
        assert path.name in while_damaged(path, content, lambda: packed_with(cli, workspace, "--ctx", "3"))


def test_a_damaged_source_is_never_packed_as_the_old_one(cli: Cli, once: Path, tmp_path: Path) -> None:
    """Another content is another corpus: everything is made anew from it, and its own hash is entered."""
    copy = Path(shutil.copytree(once, tmp_path / "copy"))
    source = copy / "one.jsonl"
    source.write_bytes(source.read_bytes().replace(b"the ", b"tho ", 1))
    result = cli("pack", "-w", copy, "--source", source, "--source", copy / "two.jsonl")
    assert result.exit_code == 0
    assert "count        made" in result.stderr
    assert "pack         made" in result.stderr
    write_sums(copy)
    assert cli("verify", "-w", copy).exit_code == 0


def test_a_damaged_table_of_counts_never_becomes_a_mapping(cli: Cli, once: Path, tmp_path: Path) -> None:
    """Refused, or made again from the stories; in no case another mapping than the right one."""
    copy = Path(shutil.copytree(once, tmp_path / "copy"))
    assert cli("build-vocab", "-w", copy, "--live", "250").exit_code == 0
    right = (copy / "token_mapping.json").read_bytes()
    for content in flipped((once / "token_counts.parquet").read_bytes(), FLIPS):
        shutil.rmtree(copy)
        shutil.copytree(once, copy)
        (copy / "token_counts.parquet").write_bytes(content)
        result = cli("build-vocab", "-w", copy, "--live", "250")
        assert result.exit_code or (copy / "token_mapping.json").read_bytes() == right
        assert result.exit_code in (0, 1, 2), result.stderr
