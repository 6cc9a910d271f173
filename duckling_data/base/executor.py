"""Executors: a function mapped over numbered work items. Callers know the interface alone, not where the work is done.

`LocalExecutor` has threads. Every heavy step here (Parquet decoding, encoding, table look-ups, hashing, writing) and
waiting for a child process release the interpreter's lock: threads fill the cores, and nothing has to be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
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
    """An executor with `workers` threads of this process; in order, `ahead` results may wait beyond one a worker."""

    def __init__(self, workers: int, ahead: int = AHEAD) -> None:
        self.workers = workers
        self.ahead = ahead

    def map(self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool) -> Results[R]:
        """Yield as `Executor.map` says.

        In order of number at most `workers + ahead` results exist at a time, so that memory stays flat. In order of
        completion an item is taken when a thread is free for it.
        """
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
