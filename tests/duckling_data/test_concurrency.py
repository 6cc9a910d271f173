"""Many processes that want the same thing in one workspace: one makes it, the others wait and use it."""

from __future__ import annotations

from pathlib import Path

from tests.support import forked
from tests.support.data import SMALL, snapshot

PROCESSES = 10
STAGES = ("count", "build-vocab", "pack")


def test_of_ten_equal_commands_one_makes_everything_and_all_succeed(
    stories: Path, packed_once: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    arguments = ("pack", "-w", workspace, "--source", stories, *SMALL)
    running = [
        forked.start("duckling_data.cli", *arguments, output=tmp_path / f"process-{number}")
        for number in range(PROCESSES)
    ]
    assert [process.wait() for process in running] == [0] * PROCESSES
    for stage in STAGES:
        made = [process for process in running if f"{stage:<12} made " in process.stderr]
        assert len(made) == 1
    assert sum(process.stderr.count("up to date") for process in running) == len(STAGES) * (PROCESSES - 1)
    assert all(process.stderr.count("waiting for ") <= 1 for process in running)
    found, expected = ({k: v for k, v in snapshot(w).items() if k != "corpus/source.json"}
                       for w in (workspace, packed_once / "w"))  # fmt: skip
    assert found == expected
