"""A command that was killed or stopped at any moment ends, when it goes on, in the bytes of one that never was."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.support.fault.cases import Case, faults_of_a_write, faults_of_kills, make_cases
from tests.support.fault.disk import KILL, Disk, Done
from tests.support.fault.fixtures import disk, scratch

__all__ = ["disk", "scratch"]

AT_ONCE = 30
"""Seconds in which a command that is asked to stop is gone, on a slow machine with other work."""
WAITS = "once more ends it at once"
"""What a run says whose step lasts, before it has written its checkpoint and ends."""


@pytest.fixture(scope="module")
def cases(scratch: Path, disk: Disk) -> dict[str, Case]:
    return make_cases(scratch, disk, "pack", "train")


@pytest.mark.parametrize(("name", "rows", "in_a_row"), [("pack", 3, 4), ("train", 2, 4)])
def test_killed_at_random_moments_and_gone_on_with_the_bytes_are_the_same(
    disk: Disk, cases: dict[str, Case], name: str, rows: int, in_a_row: int
) -> None:
    rng = random.Random(name)
    assert [fault for _ in range(rows) for fault in faults_of_kills(disk, cases[name], rng, in_a_row)] == []


@pytest.mark.parametrize(("name", "moments"), [("pack", 5), ("train", 4)])
def test_killed_right_before_a_write_the_bytes_are_the_same(
    disk: Disk, cases: dict[str, Case], name: str, moments: int
) -> None:
    writes = random.Random(name).sample(range(1, cases[name].writes + 1), moments)
    assert [fault for at in writes for fault in faults_of_a_write(disk, cases[name], at, KILL, lasting=False)] == []


@pytest.mark.parametrize("name", ["pack", "train"])
@pytest.mark.parametrize(
    ("number", "word", "share"), [(signal.SIGTERM, "stopped by SIGTERM", 0.2), (signal.SIGINT, "interrupted", 0.7)]
)
def test_a_signal_ends_a_command_at_once_in_one_line_and_it_goes_on(
    disk: Disk, cases: dict[str, Case], name: str, share: float, number: signal.Signals, word: str
) -> None:
    case = cases[name]
    stopped = _stopped(disk, case, number, share * case.seconds)
    said = [line for line in stopped.stderr.splitlines() if line.startswith("duckling-") and WAITS not in line]
    assert (stopped.status, len(said)) == (128 + number, 1), stopped.stderr
    assert said[0].split(": ", 1)[1].startswith(f"{word}; ")
    assert "Traceback" not in stopped.stderr
    assert stopped.seconds < AT_ONCE
    done = disk.run(case.go_on(), case.folder)
    assert done.status == 0, done.stderr
    assert case.digests() == case.expected


def _stopped(disk: Disk, case: Case, number: signal.Signals, after: float) -> Done:
    """Start the case's command and signal it; where it was faster than the signal, again and sooner."""
    while True:
        case.clear()
        done = disk.run(case.start, case.folder, number=number, after=after)
        if done.status:
            return done
        after /= 2
