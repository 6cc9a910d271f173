"""Names that a source cannot have are refused in one line, which shows no secret; nothing is written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from tests.support.data import SMALL, Cli, snapshot

SECRET = "correct-horse"
STORY = b'{"text": "once upon a time"}\n'


def refused(cli: Cli, tmp_path: Path, *arguments: object) -> str:
    result = cli("pack", "-w", tmp_path / "w", *SMALL, *arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("duckling-data: ")]
    assert (result.exit_code, len(lines)) == (2, 1), result.stderr
    assert snapshot(tmp_path / "w") == {}
    assert SECRET not in result.stdout + result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"https://someone:{SECRET}@host/x", "holds a user or password"),
        (f"https://someone:{SECRET}/with/slashes@host/x.parquet", "holds a user or password"),
        (f"https://host/{SECRET}@x.parquet", "holds a user or password"),
        (f"s3://key:{SECRET}/with/slashes@bucket/x", "holds a user or password"),
        (f"s3://{SECRET}@bucket/x.jsonl?token={SECRET}", "holds a user or password"),
        (f"hf://datasets/a/b?{SECRET}", "holds a query, in which a secret may be"),
        (f"https://host/x.jsonl#{SECRET}", "holds a query"),
        (f"ftp://someone:{SECRET}@host/x", "not a kind of URL that is read"),
    ],
)
def test_a_url_that_may_hold_a_secret_is_refused_and_not_shown(cli: Cli, tmp_path: Path, url: str, says: str) -> None:
    for options in (("--source", url), ("--source", "demo:50", "--validation", url)):
        line = refused(cli, tmp_path, *options)
        assert line.startswith(f"duckling-data: {options[-2]} {url.split(':')[0]}://…: {says}")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such name")
def test_a_name_that_is_not_utf8_is_refused(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "stories"
    folder.mkdir()
    bad = folder / os.fsdecode(b"\xff.jsonl")
    bad.write_bytes(STORY)
    for source in (bad, folder):
        assert f"--source {folder}/\\xff.jsonl: not UTF-8" in refused(cli, tmp_path, "--source", source)
    assert r"--text-field \xff: not UTF-8" in refused(cli, tmp_path, "--source", "demo:50", "--text-field", "\udcff")


def test_a_workspace_whose_name_is_not_utf8_is_refused(cli: Cli, tmp_path: Path) -> None:
    result = cli("pack", "-w", tmp_path / "\udcff", "--source", "demo:50", *SMALL)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert f"--workspace {tmp_path}/\\xff: not UTF-8" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_looks_like_a_url_and_is_there_is_a_path(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:" / "b").mkdir(parents=True)
    assert "holds no stories" in refused(cli, tmp_path, "--source", "a://b")
    assert "holds no stories" in refused(cli, tmp_path, "--source", tmp_path / "a:")


def test_what_a_message_quotes_stays_on_its_line(cli: Cli, tmp_path: Path) -> None:
    """Neither a line break nor a terminal's escape sequence in a name reaches the screen as it is."""
    source = tmp_path / "two\nlines\x1b[31m.jsonl"
    assert "two\\nlines\\x1b[31m.jsonl: no such file" in refused(cli, tmp_path, "--source", source)
    source.write_bytes(b"{}\n")
    assert "two\\nlines\\x1b[31m.jsonl: " in refused(cli, tmp_path, "--source", source)
    result = cli("pack", "--live", "1\n2")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(("kind", "expected"), [(InputError, r"a\nb\x07c é 🐈"), (CheckFailed, "a\nb\\x07c é 🐈")])
def test_a_message_is_one_line_and_a_check_s_a_line_for_each_fault(kind: type[DucklingError], expected: str) -> None:
    assert str(kind("a\nb\x07c é 🐈")) == expected
