"""`status` says what a workspace holds, in whatever state it is."""

from __future__ import annotations

import json
from pathlib import Path

from duckling_data.workspace.manifest import Manifest
from tests.support.data import Cli, build


def test_each_stage_has_its_state(cli: Cli, tmp_path: Path) -> None:
    build(tmp_path, "demo:50", sample="all", live=60, dead=20, ctx=16)
    (tmp_path / "token_counts.parquet").unlink()
    manifest = Manifest(tmp_path)
    manifest.begin("pack")
    result = cli("status", "-w", tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "source       demo:50"
    assert lines[1].startswith("count        incomplete: ")
    assert lines[2].strip() == "token_counts.parquet is missing"
    assert lines[3].startswith("build-vocab  made: 60 live and 20 dead ids")
    assert lines[4] == "pack         interrupted"
    found = json.loads(cli("status", "-w", tmp_path, "--json").stdout)
    assert [stage["state"] for stage in found["stages"].values()][:3] == ["incomplete", "made", "interrupted"]
    assert found["stages"]["build-vocab"]["settings"]["live"] == 60


def test_a_stage_says_how_many_of_its_shards_are_made(cli: Cli, tmp_path: Path) -> None:
    def shown() -> tuple[list[str], list[object]]:
        stages = json.loads(cli("status", "-w", tmp_path, "--json").stdout)["stages"].values()
        return cli("status", "-w", tmp_path).stdout.splitlines()[1:], [stage["shards"] for stage in stages]

    def make(*words: object) -> None:
        assert cli(*words, "-w", tmp_path).exit_code == 0

    make("download", "--source", "demo:50")
    assert shown()[1] == [[], [], [], []]
    for number in (2, 0):
        make("count", "--shard", f"{number}/3", "--sample", "all")
    lines, shards = shown()
    assert lines[0] == "count        not made; 2 of 3 shards made"
    assert shards[0] == [{"made": 2, "of": 3}]
    (next(tmp_path.glob("shards/count-*")) / "tally-00001-of-00003.0123.partial").touch()  # is being written
    make("count", "--shard", "1/2", "--sample", "40")
    lines, shards = shown()
    assert sorted(lines[0].partition("; ")[2].split(", ")) == ["1 of 2 shards made", "2 of 3 shards made"]
    make("count", "--shard", "1/3", "--sample", "all")
    make("merge", "count", "--sample", "all", "--shards", "3")
    make("build-vocab", "--live", "60")
    make("pack", "--shard", "0/2", "--ctx", "16", "--group", "10")
    lines, shards = shown()
    assert shards == [[], [], [{"made": 1, "of": 2}], []]
    assert (lines[0][:18], lines[2]) == ("count        made:", "pack         not made; 1 of 2 shards made")


def test_shards_are_shown_before_the_first_stage_is_made(cli: Cli, tmp_path: Path) -> None:
    assert cli("download", "-w", tmp_path, "--source", "demo:50").exit_code == 0
    assert cli("count", "-w", tmp_path, "--shard", "0/2").exit_code == 0
    (tmp_path / "manifest.json").unlink()  # a first command that goes on writes it when a stage is made
    assert "count        not made; 1 of 2 shards made" in cli("status", "-w", tmp_path).stdout


def test_no_workspace_is_refused(cli: Cli, tmp_path: Path) -> None:
    result = cli("status", "-w", tmp_path)
    assert result.exit_code == 2
    assert "no manifest.json" in result.stderr
