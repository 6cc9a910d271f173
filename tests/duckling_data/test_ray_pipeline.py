"""The pipeline on Ray, on real raylets: one process's bytes on any number of nodes, and after each kind of loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from duckling_data.corpus import measure
from duckling_data.tokens.store import KEPT
from tests.support import HANG
from tests.support.data import Cli, snapshot
from tests.support.ray_cluster import Nodes, nodes

REAL = Path(__file__).parents[3] / "shared" / "data" / "tinystories"
SIZES = ("--live", "300", "--dead", "20", "--ctx", "32")
WAYS: list[tuple[object, ...]] = [
    ("--sample", "all"),
    ("--sample", "200", "--group", "all", "--unk", "decompose"),
    ("--source", REAL, "--sample", "200", "--group", "100"),
]
"""Of demo stories, unless they name a source."""


def made(workspace: Path) -> dict[str, str]:
    """Every file but the record of where the source is, and the tokens that one process keeps."""
    return {name: digest for name, digest in snapshot(workspace).items() if not name.startswith(("corpus/", KEPT))}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_nodes_gives_the_bytes_of_one_process(
    cli: Cli, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "FEW_BYTES", 0)  # so that the files are hashed on Ray
    with nodes(count) as running:
        for number, options in enumerate(WAYS):
            if "--source" in options and not REAL.exists():
                continue
            words = [*(() if "--source" in options else ("--source", "demo:600")), *options, *SIZES]
            assert cli("pack", "-w", tmp_path / f"whole{number}", *words).exit_code == 0
            on_ray = ["--executor", "ray", "--ray-address", running.address, "--shards", 5]
            assert "would make" in cli("pack", "-w", tmp_path / f"ray{number}", "-n", *words, *on_ray).stderr
            result = cli("pack", "-w", tmp_path / f"ray{number}", *words, *on_ray)
            assert result.exit_code == 0, result.stderr
            assert made(tmp_path / f"ray{number}") == made(tmp_path / f"whole{number}")


def workers_of(folder: str) -> list[int]:
    """The worker processes, busy with a task, of the nodes whose temporary folder this is."""
    raylets, children = set(), list[tuple[int, int]]()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:  # it has ended
            continue
        if b"raylet" in command.split(b"\0")[0] and folder.encode() in command:
            raylets.add(int(entry.name))
        elif command.startswith(b"ray::_call"):
            children.append((int(entry.name), parent))
    return [process for process, parent in children if parent in raylets]


def lose_a_worker(running: Nodes, _last: int) -> None:
    until = time.monotonic() + HANG
    while not (found := workers_of(os.environ["RAY_TMPDIR"])) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(found[0], signal.SIGKILL)


def lose_a_node(running: Nodes, last: int) -> None:
    running.kill(last)


@pytest.mark.parametrize("lose", [lose_a_worker, lose_a_node])
def test_a_lost_worker_or_node_changes_no_byte(cli: Cli, tmp_path: Path, lose: Callable[[Nodes, int], None]) -> None:
    options = ["--source", "demo:6000", "--sample", "all", *SIZES]
    assert cli("pack", "-w", tmp_path / "whole", *options).exit_code == 0
    assert cli("build-vocab", "-w", tmp_path / "pack", *options[:-2]).exit_code == 0
    with nodes(4) as running:
        for last, stage, records in ((3, "count", "count-*/tally-*"), (2, "pack", "pack-*/packed-*")):
            process = start(tmp_path / stage, running, options)
            wait_for(process, tmp_path / stage, records)
            lose(running, last)
            _, said = process.communicate(timeout=HANG)
            assert process.returncode == 0, said
            assert made(tmp_path / stage) == made(tmp_path / "whole")


def test_a_killed_driver_goes_on_where_it_was(cli: Cli, tmp_path: Path) -> None:
    options = ["--source", "demo:6000", "--sample", "all", *SIZES]
    assert cli("pack", "-w", tmp_path / "whole", *options).exit_code == 0
    workspace = tmp_path / "w"
    with nodes(2) as running:
        for records in ("count-*/tally-*", "pack-*/packed-*"):
            process = start(workspace, running, options)
            wait_for(process, workspace, records)
            process.kill()
            process.communicate()
            assert list((workspace / "shards").glob(records))
        process = start(workspace, running, options)
        _, said = process.communicate(timeout=HANG)
    assert process.returncode == 0, said
    assert "count        up to date" in said
    assert made(workspace) == made(tmp_path / "whole")


def start(workspace: Path, running: Nodes, options: list[str]) -> subprocess.Popen[str]:
    on_ray = ["--executor", "ray", "--ray-address", running.address, "--shards", "24"]
    command = [sys.executable, "-m", "duckling_data", "pack", "-w", str(workspace), *options, *on_ray]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], workspace: Path, records: str) -> None:
    """Wait until some of a stage's shards are made."""
    until = time.monotonic() + HANG
    while process.poll() is None and time.monotonic() < until:
        if len(list((workspace / "shards").glob(records))) >= 3:
            return
        time.sleep(0.002)
    raise AssertionError(process.communicate())
