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


def test_no_workspace_is_refused(cli: Cli, tmp_path: Path) -> None:
    result = cli("status", "-w", tmp_path)
    assert result.exit_code == 2
    assert "no manifest.json" in result.stderr
