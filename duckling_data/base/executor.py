"""Work beside the caller's: executors, child processes, calls in the background, and items fetched ahead.

It is done by threads: every heavy step (Parquet decoding, encoding, table look-ups, hashing, writing) and waiting for a
child process release the interpreter's lock, so threads use all cores and nothing has to be copied.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from duckling_data.base.signals import STOPS, Stopped

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Results in order, beyond one a worker: enough to hide an uneven task, few enough to keep memory flat."""
POLL = 0.05
"""Seconds between two looks at a child."""
GRACE = 60.0
"""Seconds in which children that the terminal has interrupted itself may end: after a step, and its evaluation."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Results = Generator[tuple[int, R], None, None]
"""Numbers of items and results; what is begun is waited for when it is closed."""


class Executor(Protocol):
    """Maps a function over work items. The two share no variable that changes: the work may be done elsewhere."""

    def map(self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool) -> Results[R]:
        """Yield (number, `function(item)`) of each item, numbered from 0: in order of number, or of completion.

        The items are taken one by one, in the caller's thread, and never many more than can be worked on at once.
        An exception of the function is raised when its result is due; no further item is begun then.
        """


class LocalExecutor:
    """An executor with `workers` threads of this process; in order, at most `workers + ahead` results exist at once."""

    def __init__(self, workers: int, ahead: int = AHEAD) -> None:
        self.workers = workers
        self.ahead = ahead

    def map(self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool) -> Results[R]:
        """Yield as `Executor.map` says."""
        limit = self.workers + self.ahead if ordered else self.workers
        pending: dict[Future[R], int] = {}
        pool = ThreadPoolExecutor(max_workers=self.workers)
        try:
            for number, item in enumerate(items):
                pending[pool.submit(function, item)] = number
                if len(pending) >= limit:
                    yield _next(pending, ordered)
            while pending:
                yield _next(pending, ordered)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _next(pending: dict[Future[R], int], ordered: bool) -> tuple[int, R]:
    """Take the first task, or the first one that is done, out of `pending`. Returns its number and result."""
    future = next(iter(pending if ordered else wait(pending, return_when=FIRST_COMPLETED).done))
    return pending.pop(future), future.result()


def default_workers() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Background:
    """One thread that makes calls in order, at most AHEAD of them waiting. `submit` and `close` raise their errors."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[object]] = deque()

    def submit(self, fn: Callable[[T], object], argument: T) -> None:
        """Have `fn(argument)` called."""
        while len(self._pending) > AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(fn, argument))

    def close(self) -> None:
        """Wait for all calls."""
        try:
            for call in self._pending:
                call.result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)


def prefetch(items: Iterable[T], depth: int = AHEAD) -> Iterator[T]:
    """Yield the items unchanged, while a thread of its own fetches up to `depth` of them ahead."""
    iterator, end = iter(items), object()
    for _, item in LocalExecutor(1, depth).map(lambda _: next(iterator, end), itertools.count(), ordered=True):
        if item is end:
            return
        yield item  # type: ignore[misc]  # not the end: an item


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Its exit status; -N after signal N."""
    message: str
    """The last line of its standard error that is not blank; empty where there is none."""


def last_line(text: str) -> str:
    """Return the last line that is not blank, stripped; "" where there is none."""
    return next((line for line in map(str.strip, reversed(text.split("\n"))) if line), "")


def run_commands(executor: Executor, commands: Iterable[list[str]], keep_open: int) -> Results[Ended]:
    """Run the commands on a local executor; yield (number, how it ended) of each, as they end.

    The children inherit the file descriptor `keep_open`, and no other. Call it in the main thread. On one of SIGNALS
    every child is interrupted and waited for, then KeyboardInterrupt is raised (`Stopped` for a signal of STOPS); a
    second signal kills them. Closing the generator interrupts them, too.
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
            return Ended(child.returncode, last_line(stderr.read().decode(errors="replace")))

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
