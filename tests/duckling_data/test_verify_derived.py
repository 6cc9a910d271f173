"""`verify` derives everything again: what was made wrong is found even where every digest was made to fit."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duckling_data.base.progress import Reporter
from duckling_data.base.records import describe
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers.blocks import Block
from duckling_data.rows.write import RowWriter
from duckling_data.stages.count import TokenCounts
from duckling_data.stages.counts import read_counts, write_counts
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit
from duckling_data.verify import derive, open_remembered
from duckling_data.verify.derive import Stories, encoder_faults
from duckling_data.workspace.manifest import Manifest
from tests.support.data import Cli, build, found, read_json, rows_of, verified, write_jsonl

DATASET = "tokenized_dataset"
SHARD = f"{DATASET}/data-00000-of-00001.arrow"
QUIET = Reporter(quiet=True)


def says(workspace: Path, **asked: Any) -> str:
    """What `verify` says against a workspace whose digests fit one another."""
    Manifest(workspace).write_sums()
    first, *faults = found(workspace, **asked).splitlines()
    assert f": {len(faults)} of its checks failed" in first
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
    ("row", "asked"), [(0, {}), (100, {"deep": True}), (-1, {"encoder": "gigatoken"})], ids=["usual", "deep", "other"]
)
def test_one_wrong_id_is_named_by_file_row_and_column(demo: Path, row: int, asked: dict[str, Any]) -> None:
    rows = rows_of(demo).copy()
    row %= len(rows)
    was = int(rows[row, 17])
    rows[row, 17] = (was + 1) % 300
    forge_rows(demo, rows)
    said = says(demo, **asked)
    assert said == f"pack: {SHARD} row {row:,} column 17: found {(was + 1) % 300}, expected {was}"


def test_an_added_row_is_named(demo: Path) -> None:
    rows = rows_of(demo)
    forge_rows(demo, np.concatenate([rows, rows[:1]]))
    assert says(demo) == f"pack: {SHARD} row {len(rows):,} was added, the stories give {len(rows):,} rows"


def test_a_missing_last_row_is_named(demo: Path) -> None:
    rows = rows_of(demo)
    forge_rows(demo, rows[:-1])
    assert f"{SHARD} row {len(rows) - 1:,} is missing, expected one that begins with {rows[-1, 0]}" in says(demo)


def test_two_rows_in_each_others_place_are_named(demo: Path) -> None:
    rows = rows_of(demo).copy()
    rows[[5, 9]] = rows[[9, 5]]
    forge_rows(demo, rows)
    assert f"pack: {SHARD} row 5 column " in says(demo)


def test_a_wrong_count_is_named_by_row_and_column(demo: Path) -> None:
    counts = read_counts(demo / "token_counts.parquet")
    counts.count[3] += 1
    forge_counts(demo, counts)
    place = "count: token_counts.parquet row 3 column count"
    said = says(demo).splitlines()
    assert said[0] == f"{place}: found {counts.count[3]}, expected {counts.count[3] - 1}"


def test_a_count_left_out_is_named(demo: Path) -> None:
    counts = read_counts(demo / "token_counts.parquet")
    rows = len(counts.count)
    forge_counts(demo, TokenCounts(counts.gpt2_id[:-1], counts.count[:-1], counts.first_seen[:-1]))
    assert f"count: token_counts.parquet has {rows - 1:,} rows, expected {rows:,}" in says(demo)


def forge_counts(workspace: Path, counts: TokenCounts) -> None:
    write_counts(workspace / "token_counts.parquet", counts)
    manifest = Manifest(workspace)
    record = manifest.stages["count"]
    record.outputs["token_counts.parquet"] = describe(workspace / "token_counts.parquet")
    record.figures |= {"tokens": counts.total, "counts_sha256": counts.digest()}
    manifest.stages["build-vocab"].inputs["counts"] = counts.digest()
    manifest.write()


def test_a_mapping_that_is_not_the_counts_top_is_named(demo: Path) -> None:
    mapping = read_json(demo / "token_mapping.json")
    ids = mapping["live_token_ids"]
    ids[1], ids[2] = ids[2], ids[1]
    mapping["compact_to_gpt2"] = {str(compact): gpt2 for compact, gpt2 in enumerate(ids)}
    mapping["gpt2_to_compact"] = {str(gpt2): compact for compact, gpt2 in enumerate(ids)}
    (demo / "token_mapping.json").write_text(json.dumps(mapping, indent=2))
    manifest = Manifest(demo)
    made = describe(demo / "token_mapping.json")
    manifest.stages["build-vocab"].outputs["token_mapping.json"] = made
    manifest.stages["pack"].inputs["mapping"] = made.sha256
    manifest.write()
    said = says(demo).splitlines()
    assert said[0] == (
        f"build-vocab: token_mapping.json compact id 1: found GPT-2 id {ids[1]}, expected {ids[2]}, the counts' next"
    )
    assert said[1].startswith(f"pack: {SHARD} row ")


@pytest.mark.parametrize(
    ("stage", "figure"),
    [("count", "tokens"), ("build-vocab", "coverage"), ("pack", "gpt2_tokens"), ("pack", "payload_sha256")],
)
def test_a_wrong_figure_is_named(demo: Path, stage: str, figure: str) -> None:
    manifest = Manifest(demo)
    figures = manifest.stages[stage].figures
    figures = figures["splits"]["train"] if stage == "pack" else figures
    figures[figure] = "0" * 64 if figure == "payload_sha256" else figures[figure] + 1
    manifest.write()
    said = says(demo)
    assert said.startswith(f"{stage}: ")
    assert f" {figure} " in said


# What is right passes, whatever the settings


SETTINGS = {
    "seed's": {"sample": 60, "live": 200, "dead": 20, "ctx": 16, "group": 7},
    "all in one group": {"sample": "all", "live": 200, "dead": 0, "ctx": 33, "group": None},
    "lossless": {"sample": 30, "live": 260, "dead": 20, "ctx": 16, "unk": "decompose", "eos": True, "separator": "eos"},
    "reserved": {"sample": "all", "live": 100, "dead": 3, "ctx": 8, "unk": "reserved"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_right_passes(tmp_path: Path, name: str) -> None:
    texts = [*demo_stories(0, 90).to_pylist(), "", "a 🦆 <|endoftext|>", "\u1c89x \u088f y", ""]
    write_jsonl(tmp_path / "b.jsonl", texts[:50])
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("<|endoftext|>".join(texts[50:]).encode(), mtime=0))
    build(tmp_path / "w", tmp_path / "b.jsonl", tmp_path / "a.txt.gz", **SETTINGS[name])
    Manifest(tmp_path / "w").write_sums()
    for deep in (False, True) if name == "lossless" else (False,):
        assert len([line for line in verified(tmp_path / "w", deep=deep) if "derived again" in line]) == 3


def test_split_tokens_recorded_as_unknown_by_the_version_before_pass(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "s.jsonl", demo_stories(0, 40).to_pylist())
    manifest = build(tmp_path / "w", tmp_path / "s.jsonl", **SETTINGS["lossless"])
    figures = manifest.stages["pack"].figures["splits"]["train"]
    assert (figures["unknown_tokens"], figures["unknown_rate"]) == (0, 0.0)
    figures["unknown_tokens"] = figures.pop("split_tokens")
    figures["unknown_rate"] = round(figures["unknown_tokens"] / figures["gpt2_tokens"], 9)
    manifest.write()
    verified(tmp_path / "w")
    figures["unknown_tokens"] -= 1
    manifest.write()
    assert "unknown_tokens" in says(tmp_path / "w")


def test_a_mapping_of_ones_own_passes(demo: Path, tmp_path: Path) -> None:
    build(tmp_path / "w", "demo:200", mapping=demo / "token_mapping.json", ctx=32)
    assert "build-vocab  ok: 1 files, a mapping of your own" in verified(tmp_path / "w")


# The sample


def test_a_sampled_story_that_the_other_encoder_encodes_otherwise_is_named(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = EncodedSplit._encode

    def encode(split: EncodedSplit, first: int, block: Block, wanted: Any) -> EncodedBatch:
        encoded = kept(split, first, block, wanted)
        if split._pool._kind == "tokenizers" and (encoded.stories == 17).any():
            at = int(encoded.lengths[: encoded.stories.tolist().index(17)].sum()) + 4
            encoded.tokens[at] = 262
        return encoded

    monkeypatch.setattr(EncodedSplit, "_encode", encode)
    said = says(demo)
    assert said.startswith("pack: story 17 of the train split: after 4 equal tokens gigatoken gives [")
    assert ", tokenizers [262, " in said


def test_the_sample_is_the_same_every_time_and_all_of_a_small_split(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = open_remembered(Manifest(demo), 1, QUIET)
    monkeypatch.setattr(derive, "SAMPLE_STORIES", 50)
    stories = Stories(corpus, 1, QUIET, "gigatoken", "tokenizers")
    taken: list[list[int]] = []
    kept = EncodedSplit._encode

    def encode(split: EncodedSplit, first: int, block: Block, wanted: Any) -> EncodedBatch:
        taken.append(np.flatnonzero(wanted).tolist())
        return kept(split, first, block, wanted)

    monkeypatch.setattr(EncodedSplit, "_encode", encode)
    for split in ("train", "train", "validation"):
        assert list(encoder_faults(split, stories)) == []
    assert taken[0] == taken[1] == taken[2] == taken[3]
    assert len(taken[0]) == 50
    assert taken[4] == list(range(10))


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
def test_a_source_file_that_changed_is_named(own: Path, damage: str) -> None:
    file = own.parent / "own.jsonl"
    act, word = SOURCE_DAMAGE[damage]
    act(file)
    said = says(own)
    assert said.startswith(f"corpus: {file}")
    assert word in said


def test_another_source_than_the_stages_are_made_from_is_named(cli: Cli, own: Path) -> None:
    cli("download", "-w", own, "--source", "demo:200")
    said = says(own).splitlines()
    assert said == [
        "count: token_counts.parquet was made before its input 'corpus' changed; run `duckling-data count`",
        "pack: tokenized_dataset was made before its input 'corpus train' changed; run `duckling-data pack`",
    ]


def test_a_source_record_that_names_another_source_is_named(own: Path) -> None:
    record = read_json(own / "corpus/source.json")
    record["sources"] = ["demo:60"]
    (own / "corpus/source.json").write_text(json.dumps(record))
    said = says(own)
    assert (
        said
        == "corpus: corpus/source.json names demo with train, validation, expected files with train as in manifest.json"
    )
