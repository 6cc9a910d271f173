"""The whole pipeline with another base than GPT-2: the obvious way's bytes, and a complete workspace."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_from_disk

from duckling_data.corpus.demo import demo_stories
from duckling_data.rows.read import open_rows
from duckling_data.tokens.base import BASE_FILE
from duckling_data.tokens.mapping import MAPPING_FILE, open_mapping
from duckling_data.tokens.tokenizer import DucklingTokenizer
from tests.support import reference_pipeline as reference
from tests.support.bases import BASES, llama_3_like, small, sparse
from tests.support.data import Cli, found, read_json, rows_of, snapshot, stages_that, verified, write_jsonl

TEXTS = [*demo_stories(0, 60).to_pylist(), "", "naïve 🦆 \r\n\r\n 2024", *demo_stories(60, 70).to_pylist()]
SIZES = ("--sample", 40, "--live", 200, "--ctx", 16, "--group", 9, "--workers", 2)
WIDE = 70_000
"""More ids than uint16 holds."""


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "stories.jsonl", TEXTS)
    return tmp_path / "stories.jsonl"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Each base's file."""
    for name, content in BASES.items():
        (tmp_path / f"{name}.json").write_bytes(content())
    return {name: tmp_path / f"{name}.json" for name in BASES}


def made(cli: Cli, workspace: Path, *arguments: object, command: str = "pack") -> list[str]:
    """The stages that the command made."""
    return stages_that("made", cli(command, "-w", workspace, *arguments))


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("dead", [20, WIDE])
def test_the_pipeline_gives_the_obvious_ways_bytes(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path, name: str, dead: int
) -> None:
    workspace, content = tmp_path / "w", BASES[name]()
    assert (
        made(cli, workspace, "--source", stories, *SIZES, "--dead", dead, "--tokenizer", files[name])[0] == "tokenizer"
    )
    library = reference.load_base(content)
    counts = reference.count(library, Dataset.from_dict({"text": TEXTS}), 40, seed=42)
    mapping = reference.build_mapping(counts, 200, dead, content)
    assert (workspace / MAPPING_FILE).read_bytes() == reference.mapping_bytes(mapping)
    rows = np.array(reference.pack(library, TEXTS, mapping, 16, 9), "<u4" if dead == WIDE else "<u2")
    np.testing.assert_array_equal(rows_of(workspace), rows)
    assert (workspace / BASE_FILE).read_bytes() == content
    packed = read_json(workspace / "manifest.json")["stages"]["pack"]["figures"]["splits"]["train"]
    assert packed["payload_sha256"] == hashlib.sha256(rows.tobytes()).hexdigest()
    opened = load_from_disk(str(workspace / "tokenized_dataset"))
    assert opened.features["input_ids"].feature.dtype == rows.dtype.name
    assert opened[3]["input_ids"] == rows[3].tolist()
    assert open_rows(workspace / "tokenized_dataset").occurrences()[:200].sum() == rows.size
    files[name].unlink()
    alone = "tokenizers" if name == "normalizing" else "gigatoken, a sample also by tokenizers"
    assert f"every row derived again by {alone};" in " ".join(verified(workspace))


def test_ids_that_uint16_does_not_hold_are_counted_as_uint32(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    for name, kind in (("sparse", "uint32"), ("small", "uint16")):
        made(cli, tmp_path / name, "--source", stories, "--tokenizer", files[name], command="count")
        assert str(pq.read_schema(tmp_path / name / "token_counts.parquet").field("gpt2_id").type) == kind


@pytest.mark.parametrize("name", ["llama 3", "sparse"])
def test_decompose_loses_nothing_with_any_base(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    workspace = tmp_path / "w"
    options = ("--unk", "decompose", "--eos", "--separator", "eos", "--group", "all", "--live", 260)
    made(cli, workspace, "--source", stories, *SIZES, *options, "--tokenizer", files[name])
    tokenizer, (mapping, base) = DucklingTokenizer(workspace / MAPPING_FILE), open_mapping(workspace / MAPPING_FILE)
    end = mapping["gpt2_to_compact"][str(base.eos_id)]
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (base.eos_text, end)
    text = str(tokenizer.decode(rows_of(workspace).ravel()))
    assert "".join(f"{story}{base.eos_text}" for story in TEXTS).startswith(text)
    assert len(text) > 1000
    assert verified(workspace)


def test_a_workspace_without_a_token_that_ends_a_text_refuses_it(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    for option in (("--eos",), ("--separator", "eos")):
        result = cli(
            "pack", "-w", tmp_path / "w", "-q", "--source", stories, *SIZES, *option, "--tokenizer", files["small"]
        )
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "this tokenizer has no token that ends a text" in result.stderr


def test_the_workspace_remembers_its_base_and_another_one_makes_all_again(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    workspace, everything = tmp_path / "w", ["count", "build-vocab", "pack"]
    first = cli("pack", "-w", workspace, "--source", stories, *SIZES, "--tokenizer", files["llama 3"])
    assert "tokenizer file (given); encoded by gigatoken, which agrees with tokenizers on" in first.stderr
    before = snapshot(workspace)
    again = cli("pack", "-w", workspace)
    assert stages_that("up to date", again) == ["tokenizer", *everything]
    assert "tokenizer file (remembered)" in again.stderr
    assert snapshot(workspace) == before
    tried = cli("pack", "-w", workspace, "-n", "--tokenizer", files["small"])
    assert stages_that("would make", tried) == ["tokenizer", *everything]
    assert snapshot(workspace) == before
    assert made(cli, workspace, "--tokenizer", files["small"]) == ["tokenizer", *everything]
    assert made(cli, workspace, "--tokenizer", "gpt2") == everything
    assert not (workspace / BASE_FILE).exists()
    plain = tmp_path / "plain"
    cli("pack", "-w", plain, "--source", stories, *SIZES)
    assert snapshot(workspace) == snapshot(plain)
    assert made(cli, workspace, "--tokenizer", files["llama 3"]) == ["tokenizer", *everything]
    assert snapshot(workspace) == before


def test_what_was_made_with_another_base_is_never_read_with_this_one(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    made(cli, workspace, "--source", stories, *SIZES, "--tokenizer", files["llama 3"])
    made(cli, workspace, "--tokenizer", files["small"], command="count")
    for command in (("inspect",), ("inspect", "--text", "the cat")):
        result = cli(*command, "-w", workspace)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert f"{BASE_FILE}: SHA-256 {hashlib.sha256(small()).hexdigest()}, expected" in result.stderr
    found(workspace, "was made before its input 'tokenizer' changed")
    assert made(cli, workspace) == ["build-vocab", "pack"]
    verified(workspace)


def test_inspect_and_the_report_show_the_bases_tokens(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    made(cli, workspace, "--source", stories, *SIZES, "--tokenizer", files["sparse"], command="run")
    library = reference.load_base(sparse())
    shown = json.loads(cli("inspect", "-w", workspace, "--text", "the cat</s>", "--json").stdout)
    assert [each["gpt2_id"] for each in shown] == reference.encode(library, ["the cat</s>"])[0]
    assert "".join(each["token"] for each in shown) == "the cat</s>"
    assert "base id" in cli("inspect", "-w", workspace, "--text", "the cat").stdout
    assert "base tokens of the stories" in (workspace / "report" / "index.html").read_text()
    status = json.loads(cli("status", "-w", workspace, "--json").stdout)["stages"]
    assert (status["tokenizer"]["state"], status["tokenizer"]["summary"]) == ("made", "600 tokens")


def test_a_damaged_base_is_found_and_never_used(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    made(cli, workspace, "--source", stories, *SIZES, "--tokenizer", files["small"])
    (workspace / BASE_FILE).write_bytes(small().replace(b'"<pad>"', b'"<dap>"'))
    found(workspace, f"tokenizer: {BASE_FILE} ")
    for command in (("pack",), ("inspect",)):
        result = cli(*command, "-w", workspace)
        assert result.exit_code in (1, 2)
        assert BASE_FILE in result.stderr
    assert made(cli, workspace, "--tokenizer", files["small"]) == ["tokenizer"]
    verified(workspace)


def test_a_mapping_of_ones_own_needs_its_base(cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path) -> None:
    made(cli, tmp_path / "w", "--source", stories, *SIZES, "--tokenizer", files["small"])
    mapping = tmp_path / "w" / MAPPING_FILE
    given = ("--source", stories, "--mapping", mapping, "--ctx", 16, "--group", 9)
    for base in ((), ("--tokenizer", files["llama 3"])):
        result = cli("pack", "-w", tmp_path / "other", "-q", *given, *base)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "its base tokenizer is" in result.stderr
    assert made(cli, tmp_path / "other", *given, "--tokenizer", files["small"]) == ["tokenizer", "build-vocab", "pack"]
    np.testing.assert_array_equal(rows_of(tmp_path / "other"), rows_of(tmp_path / "w"))
    verified(tmp_path / "other")


def test_every_id_may_be_live_and_none_is_taken_for_an_unknown_one(cli: Cli, tmp_path: Path) -> None:
    from duckling_data.tokens.compact import CompactTable
    from duckling_data.tokens.tokenizer_file import parse_base

    base = parse_base(sparse())
    ids = [*range(1 << 16)]
    table = {str(token): token for token in ids}
    mapping: Any = {
        "live_tokens": 1 << 16, "dead_tokens": 0, "total_vocab": 1 << 16, "unk_id": 0, "live_token_ids": ids,
        "gpt2_to_compact": table, "compact_to_gpt2": table,
    }  # fmt: skip
    made = CompactTable.from_mapping(mapping, base).compact(np.array([65535, 65536, 3], np.uint32), np.array([3]))
    assert (made.tokens.tolist(), made.unknown) == ([65535, 0, 3], 1)


def test_a_saved_tokenizer_has_its_base_beside_it(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    made(cli, tmp_path / "w", "--source", stories, *SIZES[:4], "--tokenizer", files["llama 3"], command="build-vocab")
    tokenizer = DucklingTokenizer.for_model(tmp_path / "w" / MAPPING_FILE, 16)
    tokenizer.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "w")
    assert (tmp_path / "saved" / BASE_FILE).read_bytes() == llama_3_like()
    opened = DucklingTokenizer.from_pretrained(tmp_path / "saved")
    assert opened.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    assert opened.mapping == tokenizer.mapping
    assert BASE_FILE not in (tmp_path / "saved" / "tokenizer_config.json").read_text()


def test_shards_of_another_base_give_the_bytes_of_one_process(
    cli: Cli, stories: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    base, settings = ("--tokenizer", files["llama 3"]), (*SIZES[:-2], "--dead", WIDE)
    made(cli, tmp_path / "one", "--source", stories, *settings, *base, "--no-keep-tokens")
    assert made(cli, tmp_path / "w", "--source", stories, *settings, *base, "--shards", 3)[0] == "tokenizer"
    assert snapshot(tmp_path / "w") == snapshot(tmp_path / "one")
    other = tmp_path / "array"
    cli("download", "-w", other, "--source", stories)
    refused = cli("count", "-w", other, "-q", *settings[:2], *base, "--shard", "0/2")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "run `duckling-data download` with the same --tokenizer first" in refused.stderr
    assert made(cli, other, *base, command="download") == ["tokenizer"]
    for number in range(2):
        done = cli("count", "-w", other, *settings[:2], *base[: 2 * number], "--shard", f"{number}/2")
        assert done.exit_code == 0, done.stderr
    assert stages_that("made", cli("merge", "count", "-w", other)) == ["count"]
    counts = [(place / "token_counts.parquet").read_bytes() for place in (tmp_path / "one", other)]
    assert counts[0] == counts[1]
