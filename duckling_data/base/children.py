"""Child processes: commands run by the threads of an executor, all of them stopped together by a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from duckling_data.base.command_line import STOPS, Stopped
from duckling_data.base.executor import Executor, Results

POLL = 0.05
"""Seconds between two looks at a child."""
GRACE = 10.0
"""Seconds in which children that the terminal has interrupted itself may end."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Its exit status; -N after signal N."""
    message: str
    """The last line of its standard error that is not blank; empty where there is none."""


def run_commands(executor: Executor, commands: Iterable[list[str]], keep_open: int) -> Results[Ended]:
    """Run the commands on a local executor; yield (number, how it ended) of each, as they end.

    The children inherit the file descriptor `keep_open`, and no other. Call it in the main thread. On SIGINT, SIGTERM
    or SIGHUP every child is interrupted and waited for, then KeyboardInterrupt is raised, for the former two as a
    `Stopped` with the signal's number; a second signal kills them. Closing the generator interrupts them, too.
    """
    closed = threading.Event()

    def run(command: list[str]) -> Ended:
        _raise_first(received)
        with tempfile.TemporaryFile() as stderr:
            # In this process's own group: what ends the group (a closed terminal, a kill) ends the children with it.
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, pass_fds=(keep_open,)
            )
            _wait(child, lambda: bool(received) or closed.is_set())
            _end(child, received)
            _raise_first(received)  # it did not end by itself, perhaps
            stderr.seek(0)
            lines = [line.strip() for line in stderr.read().decode(errors="replace").split("\n")]
        return Ended(child.returncode, next((line for line in reversed(lines) if line), ""))

    with _noted_signals() as received:
        results = executor.map(run, commands, ordered=False)
        try:
            for result in results:
                yield result
                _raise_first(received)
        finally:
            closed.set()  # before the executor waits for what still runs
            results.close()


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Note the signals of SIGNALS in a list instead of raising them, so that no step is interrupted halfway."""
    received: list[int] = []
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup has one ignored
    before = {number: signal.signal(number, lambda got, _: received.append(got)) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_first(received: list[int]) -> None:
    if received:
        raise Stopped(received[0]) if received[0] in STOPS else KeyboardInterrupt


def _end(child: subprocess.Popen[bytes], received: list[int]) -> None:
    """Interrupt a child that still runs and wait until it has ended; kill it at one more signal."""
    before = len(received)

    def again() -> bool:
        return len(received) > before

    if received[:1] == [signal.SIGINT] and _in_foreground():
        # Ctrl-C has reached it, too, and a second one could interrupt what it writes at the end.
        _wait(child, again, GRACE)
    for number, given_up in ((signal.SIGINT, again), (signal.SIGKILL, lambda: False)):
        child.send_signal(number)  # does nothing to a process that has ended
        _wait(child, given_up)


def _wait(child: subprocess.Popen[bytes], given_up: Callable[[], bool], seconds: float = float("inf")) -> None:
    """Wait until the child has ended, `given_up` is true, or so many seconds are over."""
    deadline = time.monotonic() + seconds
    while child.poll() is None and not given_up() and time.monotonic() < deadline:
        time.sleep(POLL)


def _in_foreground() -> bool:
    """Whether a terminal has this process's group in its foreground, and so sends its Ctrl-C to the whole group."""
    try:
        with Path("/dev/tty").open("rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
