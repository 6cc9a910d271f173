"""Processes side by side: started as places come free, and stopped together. Knows nothing of sweeps."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from duckling_data.base.command_line import STOPS, Stopped

POLL = 0.05
"""Seconds between two looks at the children."""
GRACE = 10.0
"""Seconds in which children that the terminal has interrupted itself may end."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Its exit status; -N after signal N."""

    message: str
    """The last line of its standard error; empty if it said nothing."""


class _Child:
    def __init__(self, command: list[str], keep_open: int) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the child has ended
        # In this process's own group: what ends the group (a closed terminal, a kill) ends the children with it.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr, pass_fds=(keep_open,)
        )

    def ended(self) -> Ended | None:
        status = self.process.poll()
        if status is None:
            return None
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        self._stderr.close()
        return Ended(status, next((line.strip() for line in reversed(lines) if line.strip()), ""))


class _Interrupts:
    """The signals that ask to stop, received so far; they are noted, not raised, so that no step is cut in two."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)

    def error(self) -> KeyboardInterrupt:
        """Return what the first signal is raised as when nothing is left running."""
        first = self.received[0]
        return Stopped(first) if first in STOPS else KeyboardInterrupt()


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[_Interrupts]:
    interrupts = _Interrupts()
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup has one ignored
    before = {number: signal.signal(number, interrupts.note) for number in heeded}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_side_by_side(
    commands: Mapping[str, list[str]],
    jobs: int,
    *,
    keep_open: int,
    started: Callable[[str], None],
    ended: Callable[[str, Ended], None],
) -> None:
    """Run named commands, `jobs` at a time, in order; `started` and `ended` are called with each one's name.

    The children inherit the file descriptor `keep_open`, and no other. Call it in the main thread. On SIGINT, SIGTERM
    or SIGHUP every child is interrupted and waited for, then KeyboardInterrupt is raised, for the former two as a
    `Stopped` with the signal's number; a second signal kills them.
    """
    waiting = list(commands)
    running: dict[str, _Child] = {}
    with _noted_interrupts() as interrupts:
        try:
            while waiting or running:
                if interrupts.received:
                    raise interrupts.error()
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    started(name)
                    running[name] = _Child(commands[name], keep_open)
                time.sleep(POLL)
                for name, child in list(running.items()):
                    if (end := child.ended()) is not None:
                        del running[name]
                        if interrupts.received:
                            raise interrupts.error()  # it did not end by itself, perhaps
                        ended(name, end)
        except BaseException:
            _stop([child.process for child in running.values()], interrupts)
            raise


def _stop(processes: list[subprocess.Popen[bytes]], interrupts: _Interrupts) -> None:
    """Interrupt the processes and wait until they have ended; kill them at a second signal."""
    before = len(interrupts.received)
    if interrupts.received[:1] == [signal.SIGINT] and _in_foreground():
        # Ctrl-C has reached them, too, and a second one could hit what they write at the end.
        _wait(processes, lambda: len(interrupts.received) > before, GRACE)
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    _wait(processes, lambda: len(interrupts.received) > before)
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(
    processes: list[subprocess.Popen[bytes]], given_up: Callable[[], bool], seconds: float = float("inf")
) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and not given_up() and time.monotonic() < deadline:
        time.sleep(POLL)


def _in_foreground() -> bool:
    """Whether a terminal has this process's group in its foreground, and so sends its Ctrl-C to the whole group."""
    try:
        with Path("/dev/tty").open("rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
