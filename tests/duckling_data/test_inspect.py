"""`inspect` shows a person what the rows and the mapping hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from duckling_data.corpus.demo import demo_stories
from tests.support.data import Cli, build, write_jsonl

STORY = "The cat sat. The cat ran. The zebra sat."
# GPT-2 tokens: The| cat| sat|.| The| cat| ran|.| The| z|ebra| sat|.   The 3 rarest of 9 are the last to come.
CTX = 13


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One story, in one row; " z" and "ebra" have no live id."""
    folder = tmp_path_factory.mktemp("inspect")
    write_jsonl(folder / "s.jsonl", [STORY])
    build(folder / "w", folder / "s.jsonl", sample="all", live=6, dead=2, ctx=CTX)
    return folder / "w"


@pytest.fixture
def workspace(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "w"))


def mapped(stdout: str) -> dict[str, list[str]]:
    """token -> [GPT-2 id, count, rank, kind, compact ids...]"""
    lines = [line.rsplit("'", 1) for line in stdout.splitlines()[1:]]
    return {token.strip("'"): rest.split() for token, rest in lines}


def test_a_row_decodes_to_the_story_with_the_unknown_as_full_stops(cli: Cli, workspace: Path) -> None:
    result = cli("inspect", "-w", workspace)
    assert (result.exit_code, result.stderr) == (0, "")
    header, text = result.stdout.splitlines()
    assert header == "--- row 0 of 1 (tokenized_dataset)"
    assert text == "The cat sat. The cat ran. The.. sat."


def test_an_id_that_is_reserved_for_unknown_tokens_is_shown(cli: Cli, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "s.jsonl", [STORY])
    build(tmp_path / "w", tmp_path / "s.jsonl", sample="all", live=7, dead=2, ctx=CTX, unk="reserved")
    shown = cli("inspect", "-w", tmp_path / "w").stdout
    assert shown.splitlines()[1] == "The cat sat. The cat ran. The⟨unk⟩⟨unk⟩ sat."


def test_rows_of_a_lossless_mapping_are_the_stories_text(cli: Cli, tmp_path: Path) -> None:
    build(tmp_path, "demo:200", sample="all", live=300, dead=2, ctx=16, group="all", unk="decompose")
    whole = "".join(demo_stories(0, 200).to_pylist())
    rows = cli("inspect", "-w", tmp_path, "--rows", "9").stdout.split("--- row ")[1:]
    assert [row.split(" ")[0] for row in rows] == [str(number) for number in range(9)]
    text = "".join(row.split("\n", 1)[1][:-1] for row in rows)
    assert len(text) > 200
    assert whole.startswith(text)
    first, second = (cli("inspect", "-w", tmp_path, "--row", row).stdout.split("\n", 1)[1] for row in (0, 1))
    assert text.startswith(first[:-1] + second[:-1])
    validation = cli("inspect", "-w", tmp_path, "--validation").stdout
    assert "(tokenized_validation)" in validation
    assert demo_stories(0, 1, split="validation")[0].as_py().startswith(validation.split("\n", 1)[1][:-1])


@pytest.mark.parametrize("row", [1, 99, -1])
def test_a_row_out_of_range_is_refused_with_the_range(cli: Cli, workspace: Path, row: int) -> None:
    result = cli("inspect", "-w", workspace, "--row", row)
    assert result.exit_code == 2
    assert f"--row {row}: expected 0 to 0; tokenized_dataset has 1 rows" in result.stderr


def test_rows_beyond_the_last_are_not_shown(cli: Cli, workspace: Path) -> None:
    assert cli("inspect", "-w", workspace, "--rows", "5").stdout.count("--- row") == 1


def test_text_shows_what_becomes_of_each_token(cli: Cli, workspace: Path) -> None:
    result = cli("inspect", "-w", workspace, "--text", "The cat zebra dog.")
    assert (result.exit_code, result.stderr) == (0, "")
    seen = mapped(result.stdout)
    assert list(seen) == ["The", " cat", " z", "ebra", " dog", "."]
    assert seen["."] == ["13", "3", "1", "live:", "0"]
    assert seen[" cat"] == ["3797", "2", "2", "live:", "1"]
    assert seen[" z"] == ["1976", "1", "7", "unknown:", "0"]
    assert seen[" dog"] == ["3290", "0", "-", "unknown:", "0"]


def test_text_shows_the_pieces_that_a_token_is_split_into(cli: Cli, tmp_path: Path) -> None:
    # GPT-2 tokens: a|ab| ba| b| a| a and ab. Four ids hold "ab" and the bytes "a", "b" and " ", in GPT-2's order.
    write_jsonl(tmp_path / "s.jsonl", ["aab ba b a a", "ab"])
    build(tmp_path / "w", tmp_path / "s.jsonl", sample="all", live=4, dead=0, ctx=1, unk="decompose")
    seen = mapped(cli("inspect", "-w", tmp_path / "w", "--text", "ab ba b a\x07").stdout)
    assert {token: rest[3:] for token, rest in seen.items()} == {
        "ab": ["live:", "0"],
        " ba": ["split:", "3", "2", "1"],
        " b": ["split:", "3", "2"],
        " a": ["split:", "3", "1"],
        "\\x07": ["unknown:", "0"],
    }


def test_without_rows_or_mapping_the_command_that_makes_them_is_named(cli: Cli, tmp_path: Path) -> None:
    rows, text = cli("inspect", "-w", tmp_path), cli("inspect", "-w", tmp_path, "--text", "a")
    assert (rows.exit_code, text.exit_code) == (2, 2)
    assert "duckling-data pack" in rows.stderr
    assert "duckling-data build-vocab" in text.stderr


def test_damaged_rows_are_refused_in_one_line(cli: Cli, workspace: Path) -> None:
    shard = workspace / "tokenized_dataset" / "data-00000-of-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    result = cli("inspect", "-w", workspace)
    assert result.exit_code == 1
    assert "duckling-data verify" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_json_has_the_rows_and_the_tokens(cli: Cli, workspace: Path) -> None:
    shown = cli("inspect", "-w", workspace, "--json")
    (row,) = json.loads(shown.stdout)
    assert (shown.exit_code, row["dataset"], row["row"], row["rows"]) == (0, "tokenized_dataset", 0, 1)
    (part,) = row["stories"]
    assert part["text"] == cli("inspect", "-w", workspace).stdout.splitlines()[1]
    assert (part["column"], part["position"], len(part["ids"])) == (0, None, CTX)
    cat, zebra = json.loads(cli("inspect", "-w", workspace, "--text", " cat dog", "--json").stdout)
    assert cat == {"token": " cat", "gpt2_id": 3797, "count": 2, "rank": 2, "kind": "live", "becomes": [1]}
    assert (zebra["rank"], zebra["kind"], zebra["becomes"]) == (None, "unknown", [0])
    refused = cli("inspect", "-w", workspace, "--row", "9", "--json")
    assert (refused.exit_code, refused.stdout) == (2, "")
