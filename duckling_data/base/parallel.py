"""Threads that keep the order: what comes out does not depend on how many there are.

Every heavy step here (Parquet decoding, encoding, table look-ups, hashing, writing) releases the interpreter's
lock, so threads are enough to fill the cores, and nothing has to be copied between processes.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Tasks in flight beyond one a worker: enough to hide an uneven task, few enough to keep memory flat."""


def default_workers() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(fn: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield `fn(item)` for each item, in the items' order, computed by `workers` threads.

    At most `workers + AHEAD` results exist at a time. An exception in `fn` is raised at its item's turn.
    """
    pool = ThreadPoolExecutor(max_workers=workers)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(fn, item))
            if len(pending) >= workers + AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Background:
    """One thread that makes calls in the order they were submitted, while the caller goes on.

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
    slots: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(last: bool, value: T | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                slots.put((last, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fetch() -> None:
        try:
            for item in items:
                if not put(False, item):
                    return
            put(True, None)
        except BaseException as error:  # handed over to the reader, who raises it
            put(True, error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while True:
            last, value = slots.get()
            if isinstance(value, BaseException) and last:
                raise value
            if last:
                return
            yield value  # type: ignore[misc]  # not last: an item
    finally:
        stopped.set()
        thread.join()
