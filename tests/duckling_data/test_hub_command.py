"""The command line downloads, needs no network afterwards, and takes no other file for TinyStories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from duckling_data.corpus import hub
from duckling_data.corpus.hub import TINYSTORIES
from tests.support.data import SMALL, Cli, snapshot
from tests.support.hub.case import BODIES, DATASET, NAMES, SIZES, environment, served
from tests.support.hub.server import CLOSE, HubServer


def test_the_command_counts_what_it_downloaded_and_then_needs_no_network(
    cli: Cli, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TINYSTORIES", DATASET)
    workspace = tmp_path / "w"
    made = cli("pack", "-w", workspace, *SMALL)
    assert made.exit_code == 0, made.stderr
    manifest = json.loads((workspace / "manifest.json").read_text())
    splits = manifest["corpus"]["splits"]
    assert manifest["corpus"]["source"] == "tinystories"
    assert {name: [file["name"] for file in split["files"]] for name, split in splits.items()} == {
        "train": NAMES[:2],
        "validation": NAMES[2:],
    }
    assert {name: split["stories"] for name, split in splits.items()} == {"train": 50, "validation": 15}
    before = snapshot(workspace)
    server.requests.clear()
    again = cli("pack", "-w", workspace, "--offline")
    assert again.exit_code == 0, again.stderr
    assert server.requests == []
    assert snapshot(workspace) == before


def test_the_command_is_refused_offline_and_without_a_connection(cli: Cli, server: HubServer, tmp_path: Path) -> None:
    server.fail("HEAD", CLOSE)
    for options, status in ((["--offline"], 2), ([], 3)):
        result = cli("count", "-w", tmp_path / "w", "-q", *options)
        assert result.exit_code == status
        assert len(result.stderr.splitlines()) == 1
        assert "--source demo" in result.stderr
        assert TINYSTORIES.splits["train"][0][0] in result.stderr


def test_the_command_takes_no_other_file_for_tinystories(server: HubServer, tmp_path: Path) -> None:
    names = [name for files in TINYSTORIES.splits.values() for name, _ in files]
    server.files = served(TINYSTORIES, dict.fromkeys(names, BODIES[NAMES[0]]))
    command = [sys.executable, "-m", "duckling_data", "count", "-w", str(tmp_path / "w")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(server, tmp_path / "home"), check=False
    )
    assert done.returncode == 3, done.stderr
    *said, error = done.stderr.splitlines()
    assert len([line for line in said if names[0] in line]) == 1
    assert all(word in error for word in (names[0], f"{SIZES[0][1]:,} bytes", "248,731,111")), error
    assert "Traceback" not in done.stderr
    assert snapshot(tmp_path / "w") == {}
