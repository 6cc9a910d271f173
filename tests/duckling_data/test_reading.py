"""How files of stories are read: byte order marks and line ends, said to the user and part of the stories' identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers import ReadOptions, count_stories, read_blocks
from duckling_data.workspace.source_record import Findings
from tests.support.data import SMALL, Cli, snapshot, verified

BOM = b"\xef\xbb\xbf"
WINDOWS = BOM + b"one\r\ntwo\rthree<|endoftext|>\r\n\r\nfour\r\r\n<|endoftext|>\r\nfive\r\n"


def read(path: Path, how: ReadOptions, block_bytes: int = 1 << 12) -> list[str | None]:
    found = [story for block in read_blocks(path, how, block_bytes) for story in block.parse().to_pylist()]
    assert count_stories(path, how) == len(found)
    return found


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 17, 1 << 12])
def test_crlf_and_a_byte_order_mark_are_no_part_of_a_story_unless_they_are_kept(
    tmp_path: Path, block_bytes: int
) -> None:
    (tmp_path / "s.txt").write_bytes(WINDOWS)
    assert read(tmp_path / "s.txt", ReadOptions(), block_bytes) == ["one\ntwo\rthree", "four", "five"]
    kept = ["\ufeffone\r\ntwo\rthree", "four", "five"]
    assert read(tmp_path / "s.txt", ReadOptions(newline="keep"), block_bytes) == kept


def test_a_byte_order_mark_before_json_lines_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_bytes(BOM + b'{"text": "\\ufeffa\\r\\n"}\r\n' + b'{"text": "b"}\r\n')
    assert read(tmp_path / "s.jsonl", ReadOptions()) == ["\ufeffa\r\n", "b"]
    (tmp_path / "s.jsonl").write_bytes(BOM + b"\r\n")
    assert read(tmp_path / "s.jsonl", ReadOptions()) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a", Findings(no_separator=True)),
        (b"a<|endoftext|>", Findings()),
        (b"a<|endoftext|>b", Findings()),
        (BOM + b"a<|endoftext|>", Findings(byte_order_mark=True)),
        (b"a\r\nb", Findings(crlf=True, no_separator=True)),
        (b"a\rb<|endoftext|>" + BOM, Findings()),
        (b"\n", Findings()),
    ],
)
def test_what_is_found_in_plain_text_does_not_depend_on_the_cuts(
    tmp_path: Path, content: bytes, expected: Findings
) -> None:
    (tmp_path / "s.txt").write_bytes(content)
    for block_bytes in (1, 3, 1 << 12):
        found = Findings()
        list(read_blocks(tmp_path / "s.txt", ReadOptions(), block_bytes, found))
        assert found == expected


def windows_file(tmp_path: Path) -> Path:
    """Forty stories with CRLF inside them and a byte order mark at the beginning."""
    texts = (text.replace(". ", ".\r\n") for text in demo_stories(0, 40).to_pylist())
    (tmp_path / "s.txt").write_bytes(BOM + "<|endoftext|>\r\n".join(texts).encode())
    return tmp_path / "s.txt"


def artifacts(workspace: Path) -> dict[str, str]:
    return {name: digest for name, digest in snapshot(workspace).items() if "tokenized" in name or "mapping" in name}


def test_what_is_dropped_is_said_once_and_the_rows_are_those_of_the_plain_file(cli: Cli, tmp_path: Path) -> None:
    path = windows_file(tmp_path)
    said = cli("pack", "-w", tmp_path / "w", "--source", path, *SMALL).stderr
    for what in ("begins with a byte order mark", "has CRLF, which is read as a line end"):
        assert said.count(what) == said.count(f"{path}: {what}") == 1
    (tmp_path / "p.txt").write_bytes(path.read_bytes().replace(b"\r\n", b"\n").removeprefix(BOM))
    assert ": has CRLF" not in cli("pack", "-w", tmp_path / "p", "--source", tmp_path / "p.txt", *SMALL).stderr
    assert artifacts(tmp_path / "w") == artifacts(tmp_path / "p")
    verified(tmp_path / "w")


def test_plain_text_without_a_separator_is_said_to_be_one_story(cli: Cli, tmp_path: Path) -> None:
    for number, text in enumerate(demo_stories(0, 40).to_pylist()):
        (tmp_path / f"{number:02}.txt").write_text(text)
    result = cli("pack", "-w", tmp_path / "w", "--source", tmp_path, *SMALL)
    expected = "02.txt and 37 more, each: has no <|endoftext|> and is read as one story"
    assert next(line for line in result.stderr.splitlines() if "one story" in line).endswith(expected)


def test_a_workspace_made_with_another_newline_is_not_up_to_date(cli: Cli, tmp_path: Path) -> None:
    path = windows_file(tmp_path)
    make = ("pack", "-w", tmp_path / "w", "--source", path, *SMALL)
    cli(*make, "--newline", "keep")
    kept = artifacts(tmp_path / "w")
    assert "up to date" in cli(*make).stderr  # remembered
    assert "made tokenized_dataset/" in cli(*make, "--newline", "lf").stderr
    assert artifacts(tmp_path / "w") != kept
    verified(tmp_path / "w")
    plain = tmp_path / "plain.txt"
    plain.write_text("<|endoftext|>".join(demo_stories(0, 40).to_pylist()))
    cli("pack", "-w", tmp_path / "w", "--source", plain, *SMALL)
    for newline in ("keep", "lf"):
        assert "pack         up to date" in cli("pack", "-w", tmp_path / "w", "--newline", newline).stderr


def test_a_workspace_of_before_the_option_stays_as_it_was_made(cli: Cli, tmp_path: Path) -> None:
    path, workspace = windows_file(tmp_path), tmp_path / "w"
    cli("pack", "-w", workspace, "--source", path, "--newline", "keep", *SMALL)
    record = json.loads((workspace / "corpus/source.json").read_text())
    del record["measured"], record["record_sha256"]
    assert record.keys() == {"format", "sources", "text_field", "counted"}  # as version 0.1.0 wrote it
    (workspace / "corpus/source.json").write_text(json.dumps(record))
    assert "pack         up to date" in cli("pack", "-w", workspace).stderr
    verified(workspace)
    (tmp_path / "t.txt").write_bytes(path.read_bytes())
    assert "has CRLF" in cli("pack", "-w", workspace, "--source", tmp_path / "t.txt").stderr  # another source


def test_stories_divided_by_their_hash_are_read_with_the_same_options_and_said_once(cli: Cli, tmp_path: Path) -> None:
    path, workspace = windows_file(tmp_path), tmp_path / "w"
    said = cli("pack", "-w", workspace, "--source", path, "--validation-share", "0.3", *SMALL).stderr
    assert f"source       {path}: has CRLF" in said
    assert "pack         up to date" in cli("pack", "-w", workspace).stderr
    verified(workspace)
    assert "made tokenized_dataset/" in cli("pack", "-w", workspace, "--newline", "keep").stderr


def test_a_workspace_without_its_source_record_is_verified_against_the_source_that_is_named(
    cli: Cli, tmp_path: Path
) -> None:
    path, workspace = windows_file(tmp_path), tmp_path / "w"
    cli("pack", "-w", workspace, "--source", path, *SMALL)
    (workspace / "corpus/source.json").unlink()
    result = cli("verify", "-w", workspace, "--source", path)
    assert result.exit_code == 0, result.stderr
