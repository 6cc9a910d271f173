"""Work beside the caller's: calls made in the background, in order, and items fetched ahead."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from duckling_data.base.executor import AHEAD, LocalExecutor

T = TypeVar("T")


def default_workers() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Background:
    """One thread that makes calls in the order they were submitted, while the caller works on.

    At most AHEAD calls wait. An exception of a call is raised by the next `submit` that waits for it, or by `close`.
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
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)


def prefetch(items: Iterable[T], depth: int = AHEAD) -> Iterator[T]:
    """Yield the items unchanged, while a thread of its own fetches up to `depth` of them ahead."""
    iterator, end = iter(items), object()
    for _, item in LocalExecutor(1, depth).map(lambda _: next(iterator, end), itertools.count(), ordered=True):
        if item is end:
            return
        yield item  # type: ignore[misc]  # not the end: an item
