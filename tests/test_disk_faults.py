"""A disk that is full, or fails, at any write: one line says so, what was whole stays, and the next command completes.

Here at some writes of each case; `scripts/soak_disk.py` has all of them.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.support.fault.cases import Case, faults_of_a_write, make_cases, said_wrong
from tests.support.fault.disk import Disk
from tests.support.fault.fixtures import disk, scratch

__all__ = ["disk", "scratch"]

SAMPLE = 4


@pytest.fixture(scope="module")
def cases(scratch: Path, disk: Disk) -> dict[str, Case]:
    return make_cases(scratch, disk, "repack", "train", "record")


@pytest.mark.parametrize(
    ("error", "lasting"), [(errno.ENOSPC, True), (errno.EIO, False)], ids=["full for good", "one failure"]
)
@pytest.mark.parametrize("name", ["repack", "train", "record"])
def test_a_disk_that_fails_at_a_write_is_named_and_nothing_is_lost(
    disk: Disk, cases: dict[str, Case], name: str, error: int, lasting: bool
) -> None:
    writes = cases[name].writes
    moments = [1 + lasting + number * writes // SAMPLE for number in range(SAMPLE)]
    found = [fault for at in moments for fault in faults_of_a_write(disk, cases[name], at, error, lasting=lasting)]
    assert found == []


def test_the_shim_counts_and_fails_every_kind_of_write(disk: Disk, cases: dict[str, Case]) -> None:
    case = cases["train"]
    assert case.writes > 100
    calls = set()
    for at in range(1, 14):
        case.clear()
        done = disk.run(case.start, case.folder, at, errno.ENOSPC)
        calls.add(done.failed.split(" ")[0])
        assert said_wrong(case, done) == []
    assert {"open", "write", "fsync", "rename", "mkdir"} <= calls


def test_a_full_disk_while_the_weights_are_written_is_told_with_the_room_that_is_free(
    disk: Disk, cases: dict[str, Case]
) -> None:
    """safetensors writes them, and passes on what the system says as text."""
    case = cases["train"]
    failed = []
    for at in range(case.writes - 41, case.writes - 35):
        case.clear()
        done = disk.run(case.start, case.folder, at, errno.ENOSPC)
        failed.append(done.failed)
        assert said_wrong(case, done) == []
    assert sum("/model.partial/.tmp" in call for call in failed) >= 3, failed
