"""A program that runs others side by side ends by a signal as every other does, and leaves none of them running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import HANG

PROGRAM = """if True:
    import os, sys, click
    from duckling_data.base.command_line import run_command
    from duckling_data.base.children import run_commands
    from duckling_data.base.executor import LocalExecutor

    @click.command()
    def work():
        child = [sys.executable, "-c", "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w')); time.sleep(600)"]
        list(run_commands(LocalExecutor(2), ([*child, name] for name in ("one", "two")), os.open(".", os.O_RDONLY)))

    run_command(work, "work", [], resume="call again")
"""  # noqa: E501


@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (signal.SIGINT, 130, "work: interrupted; call again\n"),
        (signal.SIGTERM, 143, "work: stopped by SIGTERM; call again\n"),
    ],
)
def test_a_signal_ends_the_children_and_is_told_by_status_and_line(
    tmp_path: Path, number: signal.Signals, status: int, says: str
) -> None:
    work = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    names = (tmp_path / "one", tmp_path / "two")
    deadline = time.monotonic() + HANG
    while not all(path.exists() and path.read_text().strip() for path in names) and time.monotonic() < deadline:
        time.sleep(0.01)
    work.send_signal(number)  # to it alone
    assert (work.communicate(timeout=HANG)[1], work.returncode) == (says, status)
    for path in names:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
