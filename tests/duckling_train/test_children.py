"""A program that runs others side by side ends by a signal as every other does, and leaves none of them running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from duckling_data.base.executor import Ended, LocalExecutor, run_commands

SLEEP = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w')); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEP}"

PROGRAM = """if True:
    import os, sys, click
    from duckling_data.base.command_line import run_command
    from duckling_data.base.executor import LocalExecutor, run_commands

    @click.command()
    def work():
        commands = ([sys.executable, "-c", sys.argv[1], name] for name in ("one", "two"))
        list(run_commands(LocalExecutor(2), commands, os.open(".", os.O_RDONLY)))

    run_command(work, "work", [], resume="call again")
"""


def wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 600
    while not all(path.exists() and path.read_text().strip() for path in files) and time.monotonic() < deadline:
        time.sleep(0.01)


def assert_ended(*files: Path) -> None:
    for path in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


@pytest.mark.parametrize(
    ("number", "child", "status", "says"),
    [
        (signal.SIGINT, SLEEP, 130, "work: interrupted; call again\n"),
        (signal.SIGTERM, SLEEP, 143, "work: stopped by SIGTERM; call again\n"),
        (signal.SIGTERM, STUBBORN, 143, "work: stopped by SIGTERM; call again\n"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGTERM twice"],
)
def test_a_signal_ends_the_children_a_second_one_those_that_heed_none(
    tmp_path: Path, number: signal.Signals, child: str, status: int, says: str
) -> None:
    work = subprocess.Popen([sys.executable, "-c", PROGRAM, child], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    names = (tmp_path / "one", tmp_path / "two")
    wait_for(*names)
    work.send_signal(number)  # to it alone
    if child == STUBBORN:
        time.sleep(0.5)  # else the two may be taken for one
        work.send_signal(number)
    assert (work.communicate(timeout=600)[1], work.returncode) == (says, status)
    assert_ended(*names)


def test_a_caller_that_stops_asking_ends_the_children(tmp_path: Path) -> None:
    held, file = os.open(tmp_path, os.O_RDONLY), tmp_path / "pid"
    commands = [[sys.executable, "-c", SLEEP, str(file)], [sys.executable, "-c", "import sys; sys.exit(' why \\n\\n')"]]
    before = signal.getsignal(signal.SIGINT)
    results = run_commands(LocalExecutor(2), commands, held)
    assert next(results) == (1, Ended(1, "why"))
    wait_for(file)
    results.close()
    os.close(held)
    assert_ended(file)
    assert signal.getsignal(signal.SIGINT) is before
