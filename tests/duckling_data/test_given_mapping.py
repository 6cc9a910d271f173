"""A mapping of the user's own stands in the place of counting and building one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duckling_data.workspace.manifest import Manifest
from tests.support.data import SMALL, Cli, build, read_json, rows_of, snapshot, stages_that

MAPPING = "token_mapping.json"


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A mapping as a person may keep it: with a line break at the end and no indent."""
    path = tmp_path / "own.json"
    build(made, unk="reserved", live=200)
    path.write_text(json.dumps(read_json(made / MAPPING)) + "\n")
    build(made, unk="most-frequent", live=300)
    return path


def test_a_given_mapping_is_adopted_byte_for_byte_and_remembered(cli: Cli, made: Path, own: Path) -> None:
    assert stages_that("made", cli("pack", "-w", made, "--mapping", own)) == ["build-vocab", "pack"]
    assert (made / MAPPING).read_bytes() == own.read_bytes()
    own.unlink()
    again = cli("pack", "-w", made, "--ctx", "16")
    assert "a mapping of your own (remembered)" in again.stderr
    assert stages_that("made", again) == ["pack"]
    assert (rows_of(made) == 199).any()  # its unknown id
    back = cli("build-vocab", "-w", made, "--live", "250")
    assert stages_that("made", back) == ["build-vocab"]
    assert read_json(made / MAPPING)["live_tokens"] == 250
    assert stages_that("made", cli("pack", "-w", made)) == ["pack"]


def test_a_given_mapping_needs_no_counts(cli: Cli, stories: Path, own: Path, tmp_path: Path) -> None:
    result = cli("pack", "-w", tmp_path / "w", "--source", stories, "--mapping", own, "--ctx", "32")
    assert stages_that("made", result) == ["build-vocab", "pack"]
    assert not (tmp_path / "w" / "token_counts.parquet").exists()


@pytest.mark.parametrize(
    "option", [["--live", "250"], ["--dead", "3"], ["--unk", "reserved"], ["--eos"], ["--seed", "1"]]
)
def test_a_mapping_is_given_or_built_not_both(cli: Cli, made: Path, own: Path, option: list[str]) -> None:
    before = snapshot(made)
    result = cli("pack", "-w", made, "--mapping", own, *option)
    assert result.exit_code == 2
    assert f"--mapping and {option[0]} exclude each other" in result.stderr
    assert snapshot(made) == before


@pytest.mark.parametrize("crash", [False, True])
def test_a_given_mapping_that_is_gone_is_asked_for_and_never_built_instead(
    cli: Cli, made: Path, own: Path, crash: bool
) -> None:
    cli("pack", "-w", made, "--mapping", own)
    if crash:
        Manifest(made).begin("build-vocab")
    (made / MAPPING).unlink()
    for option in ([], ["--ctx", "16"]):
        result = cli("pack", "-w", made, *option)
        assert result.exit_code == 2, result.stderr
        assert "--mapping FILE" in result.stderr.splitlines()[-1]
    assert stages_that("made", cli("pack", "-w", made, "--mapping", own))[0] == "build-vocab"


def test_the_order_of_commands_leaves_no_trace_in_the_manifest(cli: Cli, made: Path, own: Path) -> None:
    cli("pack", "-w", made.parent / "w", "--source", "demo:40", "--mapping", own, "--ctx", "32")  # without counts
    for workspace in ("w", "fresh"):
        cli("pack", "-w", made.parent / workspace, "--source", "demo:40", *SMALL)
    assert snapshot(made.parent / "w") == snapshot(made.parent / "fresh")
