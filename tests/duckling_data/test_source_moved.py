"""A workspace whose source is elsewhere now is not damaged: `verify` says so, and checks with the one given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.data import Cli, build, snapshot, write_jsonl

TEXTS = ["the cat sat.", " the cat.", " the the."]


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A folder with a workspace `w` and its source `stories/`, moved after the workspace was made."""
    before, after = tmp_path / "before", tmp_path / "after"
    (before / "stories").mkdir(parents=True)
    write_jsonl(before / "stories/s.jsonl", TEXTS)
    build(before / "w", before / "stories", sample="all", live=4, dead=2, ctx=1)
    return before.rename(after)


def test_verify_says_that_the_source_is_elsewhere_and_offers_to_name_it(cli: Cli, moved: Path, tmp_path: Path) -> None:
    before = snapshot(moved)
    result = cli("verify", "-w", moved / "w")
    assert result.exit_code == 1
    assert f"corpus: {tmp_path / 'before/stories'}: no such file or folder" in result.stderr
    assert "`duckling-data verify --source PATH`" in result.stderr
    assert "remove" not in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()][:3] == ["count", "build-vocab", "pack"]
    assert snapshot(moved) == before


def test_verify_checks_with_the_source_that_it_is_given(cli: Cli, moved: Path) -> None:
    before = snapshot(moved)
    result = cli("verify", "-w", moved / "w", "--source", moved / "stories")
    assert result.exit_code == 0, result.stderr
    assert "corpus       ok: 3 stories (train), 1 file" in result.stdout
    assert "every row derived again" in result.stdout
    assert snapshot(moved) == before
    write_jsonl(moved / "stories/s.jsonl", [*TEXTS[:2], " the hat."])
    result = cli("verify", "-w", moved / "w", "--source", moved / "stories")
    assert (result.exit_code, "s.jsonl has " in result.stderr) == (1, True)


def test_a_workspace_without_its_source_record_is_checked_with_the_source_given(cli: Cli, moved: Path) -> None:
    shutil.rmtree(moved / "w/corpus")
    result = cli("verify", "-w", moved / "w")
    assert (result.exit_code, "`duckling-data verify --source PATH`" in result.stderr) == (1, True)
    assert cli("verify", "-w", moved / "w", "--source", moved / "stories").exit_code == 0


def test_damage_is_named_beside_a_source_that_is_elsewhere(cli: Cli, moved: Path) -> None:
    (moved / "w/token_counts.parquet").unlink()
    result = cli("verify", "-w", moved / "w")
    assert result.exit_code == 1
    for said in (
        "2 of its checks failed; an output that you remove",
        "corpus: ",
        "count: token_counts.parquet is missing",
    ):
        assert said in result.stderr
