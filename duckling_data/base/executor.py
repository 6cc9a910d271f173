"""Work beside the caller's: executors, calls in the background, and items fetched ahead.

Every heavy step of the pipeline (Parquet decoding, encoding, table look-ups, hashing, writing) and waiting for a child
process release the interpreter's lock, so threads use all cores and nothing has to be copied.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Results in order, beyond one a worker: enough to hide an uneven task, few enough to keep memory flat."""

Results = Generator[tuple[int, R], None, None]
"""Numbers of items and results; what is begun is waited for when it is closed."""


class Executor(Protocol):
    """Maps a function over work items. The two share no variable that changes: the work may be done elsewhere."""

    def map(self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool) -> Results[R]:
        """Yield (number, `function(item)`) of each item, numbered from 0: in order of number, or of completion.

        The items are taken one by one, in the caller's thread, and never many more than can be worked on at once.
        An exception of the function is raised when its result is due; no further item is begun then.
        """
        ...


class LocalExecutor:
    """An executor with `workers` threads of this process; in order, at most `workers + ahead` results exist at once."""

    def __init__(self, workers: int, ahead: int = AHEAD) -> None:
        self.workers = workers
        self.ahead = ahead

    def map(self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool) -> Results[R]:
        """Yield as `Executor.map` says. In order of completion an item is taken when a thread is free for it."""
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
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Background:
    """One thread that makes calls in the order they were submitted, at most AHEAD of them waiting.

    An exception of a call is raised by the next `submit` that waits for it, or by `close`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[object]] = deque()

    def submit(self, fn: Callable[[T], object], argument: T) -> None:
        """Have `fn(argument)` called after what was submitted before."""
        while len(self._pending) > AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(fn, argument))

    def close(self) -> None:
        """Wait for all calls. Raises what the first failing one raised."""
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
