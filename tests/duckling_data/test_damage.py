"""Damage to any file of a workspace is found by `verify`, named by the file, and never used by a later stage.

Every file that a workspace holds (outputs, manifest, sums, source record) and every source file, times every kind of
damage; what the comparison of one file finds is in test_records.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import DucklingError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.demo import demo_stories
from duckling_data.pipeline import Pipeline, Request
from duckling_data.rows.layout import ROWS_PER_SHARD
from duckling_data.workspace.manifest import Manifest
from tests.support.data import Cli, build, found, rows_of, snapshot, verified, write_jsonl

SHARDS = [f"tokenized_dataset/data-{number:05d}-of-00002.arrow" for number in (0, 1)]
OUTPUTS = [
    "token_counts.parquet", "token_mapping.json", *SHARDS,
    "tokenized_dataset/dataset_info.json", "tokenized_dataset/state.json",
]  # fmt: skip
SOURCES = ["one.jsonl", "two.jsonl"]
RECORDS = ["manifest.json", "SHA256SUMS", "corpus/source.json"]
FILES = [*OUTPUTS, *SOURCES, *RECORDS]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two shards of rows and, so that a copy has its own, the source's files in it."""
    workspace = tmp_path_factory.mktemp("damage") / "w"
    workspace.mkdir()
    texts = demo_stories(0, 700).to_pylist()
    for name, part in zip(SOURCES, (texts[:300], texts[300:]), strict=True):
        write_jsonl(workspace / name, part)
    build(workspace, *(workspace / name for name in SOURCES), sample="all", live=300, dead=20, ctx=2)
    assert ROWS_PER_SHARD < len(rows_of(workspace)) < 2 * ROWS_PER_SHARD
    return workspace


@pytest.fixture
def workspace(once: Path) -> Iterator[Path]:
    """The workspace itself, which the test puts back as it was."""
    before = snapshot(once)
    yield once
    assert snapshot(once) == before


ONE_ENCODER: dict[str, Any] = {"deep": True, "encoder": "gigatoken"}


def fault(workspace: Path) -> str:
    """What `verify` names, its first line apart; fails where it finds nothing."""
    said = found(workspace, **ONE_ENCODER)
    return "\n".join(said.splitlines()[1:]) or said


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


def flipped(content: bytes, position: int, bit: int = 0) -> bytes:
    bad = bytearray(content)
    bad[position] ^= 1 << bit
    return bytes(bad)


def test_the_workspace_passes_before_it_is_damaged(workspace: Path) -> None:
    assert [line.split()[1] for line in verified(workspace, **ONE_ENCODER)] == ["ok:"] * 5
    assert set(Manifest(workspace).stages["pack"].outputs) | set(OUTPUTS[:2]) == set(OUTPUTS)


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "its first bit": lambda content: flipped(content, 0),
    "a bit in the middle": lambda content: flipped(content, len(content) // 2, 3),
    "its last bit": lambda content: flipped(content, -1, 7),
    "emptied": lambda content: b"",
    "a truncated tail": lambda content: content[:-2],
    "longer": lambda content: content + content[-64:],
    "removed": lambda content: None,
}
NO_DAMAGE = {("removed", "manifest.json"): "there is nothing to verify", ("removed", "SHA256SUMS"): "it follows"}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_found_and_named(workspace: Path, name: str) -> None:
    for damage, act in DAMAGE.items():
        if (damage, name) in NO_DAMAGE:
            continue
        said = while_damaged(workspace / name, act((workspace / name).read_bytes()), lambda: fault(workspace))
        # A damaged manifest or list of sums is named together with the other.
        named = name in said if name not in RECORDS[:2] else RECORDS[0] in said or RECORDS[1] in said
        assert named, (damage, said)


@pytest.mark.parametrize("pair", [SHARDS, SOURCES])
def test_two_files_in_each_others_place_are_named(workspace: Path, pair: list[str]) -> None:
    one, other = (workspace / name for name in pair)
    first, second = one.read_bytes(), other.read_bytes()
    said = while_damaged(one, second, lambda: while_damaged(other, first, lambda: fault(workspace)))
    assert pair[0] in said
    assert pair is SOURCES or pair[1] in said


@pytest.mark.parametrize("name", ["tokenized_dataset/data-00002-of-00003.arrow", "tokenized_validation/deep/er.txt"])
def test_an_added_file_is_found_and_named(workspace: Path, name: str) -> None:
    path = workspace / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"more")
    said = fault(workspace)
    shutil.rmtree(workspace / "tokenized_validation") if "deep" in name else path.unlink()
    assert said.startswith(f"pack: {name} was added, `duckling-data pack` did not make it")


def test_what_datasets_caches_in_the_folder_is_no_damage(workspace: Path) -> None:
    cache = workspace / "tokenized_dataset/cache-0123456789abcdef.arrow"
    cache.write_bytes(b"cache")
    verified(workspace, **ONE_ENCODER)
    cache.unlink()


# Every bit of the manifest


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of three tiny stories: every entry that a manifest can hold, in few bytes."""
    folder = tmp_path_factory.mktemp("smallest")
    write_jsonl(folder / "s.jsonl", ["the cat sat.", " the cat.", " the the."])
    build(folder / "w", folder / "s.jsonl", sample="all", live=4, dead=2, ctx=1)
    return folder / "w"


def outcome(run: Callable[[], object]) -> str:
    """What a command ends with: its error, or `harmless`; any exception but the project's own is a failure."""
    try:
        run()
    except DucklingError as error:
        return str(error)
    return "harmless"


def telling_positions(content: bytes) -> list[int]:
    """The bytes of a JSON file but for spaces and the inner digits of digests, where one is as good as another."""
    skipped = {at for run in re.finditer(rb"[0-9a-f]{64}|\n +", content) for at in range(run.start() + 2, run.end())}
    return [position for position in range(len(content)) if position not in skipped]


def test_no_flipped_bit_of_the_manifest_is_missed_or_ends_in_a_traceback(smallest: Path) -> None:
    path = smallest / "manifest.json"
    content = path.read_bytes()
    for position in telling_positions(content):
        path.write_bytes(flipped(content, position, position % 7))
        said = outcome(lambda: verified(smallest, **ONE_ENCODER))
        assert "manifest.json" in said, (position, said)
    path.write_bytes(content)


def test_no_flipped_bit_of_the_manifest_ends_a_command_in_a_traceback(smallest: Path) -> None:
    (smallest / "SHA256SUMS").rename(smallest / "sums")  # without them verify goes further
    path, dry = smallest / "manifest.json", Request(smallest, 1, dry_run=True)
    content = path.read_bytes()
    for position in telling_positions(content)[::9]:
        path.write_bytes(flipped(content, position, position % 3))
        outcome(lambda: verified(smallest, **ONE_ENCODER))
        outcome(lambda: Pipeline(dry, Reporter(quiet=True)).make("pack", "report"))
    path.write_bytes(content)
    (smallest / "sums").rename(smallest / "SHA256SUMS")


# What is damaged is not used


def test_a_damaged_mapping_is_never_packed_with(workspace: Path) -> None:
    path = workspace / "token_mapping.json"
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 20):
        packed = lambda: outcome(lambda: build(workspace, sample="all", ctx=3))  # noqa: E731
        assert path.name in while_damaged(path, flipped(content, position), packed)


def test_a_damaged_source_is_never_packed_as_the_old_one(cli: Cli, once: Path, tmp_path: Path) -> None:
    """Another content is another corpus: everything is made anew from it, and its own hash is entered."""
    copy = Path(shutil.copytree(once, tmp_path / "copy"))
    source = copy / "one.jsonl"
    source.write_bytes(source.read_bytes().replace(b"the ", b"tho ", 1))
    result = cli("pack", "-w", copy, "--source", source, "--source", copy / "two.jsonl")
    assert result.exit_code == 0
    assert "count        made" in result.stderr
    assert "pack         made" in result.stderr
    assert cli("verify", "-w", copy).exit_code == 0


def test_a_damaged_table_of_counts_never_becomes_a_mapping(made: Path) -> None:
    path = made / "token_counts.parquet"
    content, mapping = path.read_bytes(), (made / "token_mapping.json").read_bytes()
    for position in range(0, len(content), len(content) // 20):
        refused = while_damaged(path, flipped(content, position), lambda: outcome(lambda: build(made, live=250)))
        assert path.name in refused
        assert (made / "token_mapping.json").read_bytes() == mapping
