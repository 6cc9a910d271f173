"""`verify` derives everything again: what was made wrong is found even where every digest was made to fit."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from duckling_data.verify.hashes import open_remembered
from hypothesis import given
from hypothesis import strategies as st

from duckling_data.base.progress import Reporter
from duckling_data.corpus.demo import demo_stories
from duckling_data.rows.write import RowWriter
from duckling_data.stages.count import TokenCounts
from duckling_data.stages.counts import read_counts, write_counts
from duckling_data.stages.pack import PackSettings, RowPacker
from duckling_data.tokens.mapping import read_mapping
from duckling_data.verify.derive import Stories
from duckling_data.verify.rows import SplitRoad, StoredRows, row_begins, sample_rows
from duckling_data.workspace.manifest import Manifest, describe_output
from duckling_data.workspace.sums import write_sums
from tests.duckling_data.conftest import Cli, build, read_json, rows_of, write_jsonl

DATASET = "tokenized_dataset"
SHARD = f"{DATASET}/data-00000-of-00001.arrow"
QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("derived")
    build(folder / "w", "demo:200", sample="all", live=300, dead=20, ctx=32, group=30)
    return folder / "w"


@pytest.fixture
def demo(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "demo"))


def says(cli: Cli, workspace: Path, *options: str) -> str:
    """What `verify` says against a workspace whose digests fit one another."""
    write_sums(workspace)
    result = cli("verify", "-w", workspace, *options)
    assert result.exit_code == 1, (result.stdout, result.stderr)
    first, *faults = result.stderr.splitlines()
    assert f": {len(faults)} of its checks failed. " in first
    return "\n".join(faults)


def forge_rows(workspace: Path, rows: np.ndarray) -> None:
    """Put other rows in the place of the workspace's, and make the manifest say that they are right."""
    with RowWriter(workspace / DATASET, rows.shape[1], "train") as writer:
        writer.write(rows)
    writer.put_in_place()
    manifest = Manifest(workspace)
    record = manifest.stages["pack"]
    record.outputs |= {f"{DATASET}/{name}": made for name, made in writer.outputs.items()}
    record.figures["splits"]["train"] |= {"rows": len(rows), "payload_sha256": writer.payload_sha256}
    manifest.write()


@pytest.mark.parametrize(
    ("row", "options"),
    [(0, ()), (100, ("--deep",)), (-1, ("--encoder", "gigatoken")), (7, ("--deep", "--encoder", "gigatoken"))],
)
def test_one_wrong_id_is_named_by_file_row_and_column(cli: Cli, demo: Path, row: int, options: tuple[str, ...]) -> None:
    rows = rows_of(demo).copy()
    row %= len(rows)
    was = int(rows[row, 17])
    rows[row, 17] = (was + 1) % 300
    forge_rows(demo, rows)
    found = says(cli, demo, *options)
    assert found == f"pack: {SHARD} row {row:,} column 17: expected {was}, found {(was + 1) % 300}"


def test_an_added_row_is_named(cli: Cli, demo: Path) -> None:
    rows = rows_of(demo)
    forge_rows(demo, np.concatenate([rows, rows[:1]]))
    assert says(cli, demo) == f"pack: {SHARD} row {len(rows):,} was added: the stories give {len(rows):,} rows"


def test_a_missing_last_row_is_named(cli: Cli, demo: Path) -> None:
    rows = rows_of(demo)
    forge_rows(demo, rows[:-1])
    assert f"{SHARD} row {len(rows) - 1:,} is missing: expected {rows[-1, 0]} in its column 0" in says(cli, demo)


def test_two_rows_in_each_others_place_are_named(cli: Cli, demo: Path) -> None:
    rows = rows_of(demo).copy()
    rows[[5, 9]] = rows[[9, 5]]
    forge_rows(demo, rows)
    assert f"pack: {SHARD} row 5 column " in says(cli, demo)


def test_a_wrong_count_is_named_by_row_and_column(cli: Cli, demo: Path) -> None:
    counts = read_counts(demo / "token_counts.parquet")
    counts.count[3] += 1
    forge_counts(demo, counts)
    place = "count: token_counts.parquet row 3 column count"
    found = says(cli, demo).splitlines()
    assert found[0] == f"{place}: expected {counts.count[3] - 1}, found {counts.count[3]}"


def test_a_count_left_out_is_named(cli: Cli, demo: Path) -> None:
    counts = read_counts(demo / "token_counts.parquet")
    rows = len(counts.count)
    forge_counts(demo, TokenCounts(counts.gpt2_id[:-1], counts.count[:-1], counts.first_seen[:-1]))
    assert f"count: token_counts.parquet has {rows - 1:,} rows, expected {rows:,}" in says(cli, demo)


def forge_counts(workspace: Path, counts: TokenCounts) -> None:
    write_counts(workspace / "token_counts.parquet", counts)
    manifest = Manifest(workspace)
    record = manifest.stages["count"]
    record.outputs["token_counts.parquet"] = describe_output(workspace / "token_counts.parquet")
    record.figures |= {"tokens": counts.total, "counts_sha256": counts.digest()}
    manifest.stages["build-vocab"].inputs["counts"] = counts.digest()
    manifest.write()


def test_a_mapping_that_is_not_the_counts_top_is_named(cli: Cli, demo: Path) -> None:
    mapping = read_json(demo / "token_mapping.json")
    ids = mapping["live_token_ids"]
    ids[1], ids[2] = ids[2], ids[1]
    mapping["compact_to_gpt2"] = {str(compact): gpt2 for compact, gpt2 in enumerate(ids)}
    mapping["gpt2_to_compact"] = {str(gpt2): compact for compact, gpt2 in enumerate(ids)}
    (demo / "token_mapping.json").write_text(json.dumps(mapping, indent=2))
    manifest = Manifest(demo)
    made = describe_output(demo / "token_mapping.json")
    manifest.stages["build-vocab"].outputs["token_mapping.json"] = made
    manifest.stages["pack"].inputs["mapping"] = made["sha256"]
    manifest.write()
    found = says(cli, demo).splitlines()
    assert found[0] == (
        f"build-vocab: token_mapping.json compact 1: expected GPT-2 {ids[2]}, the counts' next, found {ids[1]}"
    )
    assert found[1].startswith(f"pack: {SHARD} row ")


@pytest.mark.parametrize(
    ("stage", "figure"),
    [
        *(("count", name) for name in ("stories_counted", "tokens")),
        *(("build-vocab", name) for name in ("live", "coverage")),
        *(("pack", name) for name in ("gpt2_tokens", "dropped_tail_tokens", "payload_sha256")),
    ],
)
def test_a_wrong_figure_is_named(cli: Cli, demo: Path, stage: str, figure: str) -> None:
    manifest = Manifest(demo)
    figures = manifest.stages[stage].figures
    figures = figures["splits"]["train"] if stage == "pack" else figures
    figures[figure] = "0" * 64 if figure == "payload_sha256" else figures[figure] + 1
    manifest.write()
    found = says(cli, demo)
    assert found.startswith(f"{stage}: ")
    assert f" {figure} " in found


# What is right passes, whatever the settings


SETTINGS = {
    "seed's": {"sample": 60, "live": 200, "dead": 20, "ctx": 16, "group": 7},
    "all in one group": {"sample": "all", "live": 200, "dead": 0, "ctx": 33, "group": None},
    "lossless": {"sample": 30, "live": 260, "dead": 20, "ctx": 16, "unk": "decompose", "eos": True, "separator": "eos"},
    "reserved": {"sample": "all", "live": 100, "dead": 3, "ctx": 8, "unk": "reserved"},
}


@pytest.mark.parametrize(("name", "options"), [*((name, ()) for name in SETTINGS), ("lossless", ("--deep",))])
def test_what_is_right_passes(cli: Cli, tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    texts = [*demo_stories(0, 90).to_pylist(), "", "a 🦆 <|endoftext|>", "\u1c89x \u088f y", ""]
    write_jsonl(tmp_path / "b.jsonl", texts[:50])
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("<|endoftext|>".join(texts[50:]).encode(), mtime=0))
    build(tmp_path / "w", tmp_path / "b.jsonl", tmp_path / "a.txt.gz", **SETTINGS[name])
    write_sums(tmp_path / "w")
    result = cli("verify", "-w", tmp_path / "w", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    derived = [line for line in result.stdout.splitlines() if "derived again" in line]
    assert len(derived) == 3


def test_a_mapping_of_ones_own_passes(cli: Cli, demo: Path, tmp_path: Path) -> None:
    build(tmp_path / "w", "demo:200", mapping=demo / "token_mapping.json", ctx=32)
    assert cli("verify", "-w", tmp_path / "w").exit_code == 0


# The sample


def stories_of(workspace: Path) -> Stories:
    return Stories(open_remembered(workspace, 2, QUIET), 2, QUIET, "gigatoken", "tokenizers")


def test_the_sample_alone_finds_a_wrong_id_in_a_row_that_it_takes(demo: Path) -> None:
    settings = PackSettings(ctx=32, group=30)
    road = SplitRoad("train", read_mapping(demo / "token_mapping.json"), settings, stories_of(demo))
    stored = StoredRows(demo / DATASET)
    assert road.difference(stored, Manifest(demo).stages["pack"].figures["splits"]["train"]) is None
    rows = rows_of(demo).copy()
    row = int(sample_rows(len(rows))[40])
    rows[row, 31] ^= 1
    forge_rows(demo, rows)
    difference = road.sample_difference(StoredRows(demo / DATASET))
    assert difference is not None
    assert difference.startswith(f"{SHARD} row {row:,} column 31: expected {rows[row, 31] ^ 1}, found {rows[row, 31]} ")
    assert difference.endswith("(by the encoder tokenizers)")


def test_the_sample_is_the_same_every_time_without_a_row_twice() -> None:
    for rows in (1, 999, 1000, 1001, 50_000):
        sample = sample_rows(rows)
        assert len(set(sample.tolist())) == len(sample) == min(rows, 1000)
        assert 0 <= sample.min() <= sample.max() < rows
        np.testing.assert_array_equal(sample, sample_rows(rows))


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=40), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 12))
)
def test_a_row_begins_where_the_packer_cuts_it(lengths: list[int], ctx: int, group: int | None) -> None:
    stream = np.arange(sum(lengths), dtype=np.uint16)  # each token is its own place
    rows = RowPacker(ctx, group).add(stream, np.array(lengths))
    begins = row_begins(np.array(lengths), PackSettings(ctx=ctx, group=group))
    assert begins.tolist() == rows[:, 0].tolist()


# The source


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "own.jsonl", demo_stories(0, 60).to_pylist())
    build(tmp_path / "w", tmp_path / "own.jsonl", sample="all", live=200, dead=20, ctx=16)
    return tmp_path / "w"


SOURCE_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda file: file.write_bytes(file.read_bytes().replace(b"the ", b"teh ", 1)), "has sha256"),
    "longer": (lambda file: file.write_bytes(file.read_bytes() + b'{"text": "more"}\n'), "has bytes"),
    "cut": (lambda file: file.write_bytes(file.read_bytes()[:-1]), "has bytes"),
    "removed": (lambda file: file.unlink(), "no such file"),
    "emptied": (lambda file: file.write_bytes(b""), "empty"),
    "broken": (lambda file: file.write_bytes(b"{" + file.read_bytes()), ""),
}


@pytest.mark.parametrize("damage", SOURCE_DAMAGE)
def test_a_source_file_that_changed_is_named(cli: Cli, own: Path, damage: str) -> None:
    file = own.parent / "own.jsonl"
    act, word = SOURCE_DAMAGE[damage]
    act(file)
    found = says(cli, own)
    assert found.startswith(f"corpus: {file}")
    assert word in found


def test_another_source_than_the_stages_are_made_from_is_named(cli: Cli, own: Path) -> None:
    cli("download", "-w", own, "--source", "demo:200")
    found = says(cli, own).splitlines()
    assert found == [
        "count: token_counts.parquet was made from another corpus; run `duckling-data count`",
        "pack: the rows were made from another corpus; run `duckling-data pack`",
    ]


def test_a_source_record_that_names_another_source_is_named(cli: Cli, own: Path) -> None:
    record = read_json(own / "corpus/source.json")
    record["sources"] = ["demo:60"]
    (own / "corpus/source.json").write_text(json.dumps(record))
    found = says(cli, own)
    assert found == "corpus: corpus/source.json names demo with train, validation, the manifest files with train"
