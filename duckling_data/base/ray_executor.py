"""Work on a Ray cluster: an executor whose function calls are Ray tasks, on this machine's cores or on many machines.

Ray is an extra (`pip install 'duckling[ray]'`), imported when an executor is entered. A task that dies with its worker
process or its node is run again, elsewhere. Whatever goes wrong with Ray is one line.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from duckling_data.base.errors import DucklingError, InputError, OutsideError
from duckling_data.base.executor import Results
from duckling_data.base.progress import SILENT, Reporter
from duckling_data.base.ray_cluster import (
    REACH,
    host_and_port,
    local_cluster,
    loopback,
    one_line,
    own_signals,
    reached,
)

T = TypeVar("T")
R = TypeVar("R")

MISSING = "ray is not installed: pip install 'duckling[ray]'"
IN_FLIGHT = 2
"""Tasks begun ahead for each that can run: the next one is on its node when one ends."""
POLL = 0.1
"""Seconds between two looks at signals; a program has to heed one in `signals.GRACE`."""
PATIENCE = 30.0
"""Seconds that work waits for a node that can do it, after the last one was lost."""
PASSED_ON = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT",
             "HF_HUB_ETAG_TIMEOUT")  # fmt: skip
"""What workers are given of the driver's environment, where it is set."""


class RayExecutor:
    """An executor (`base.executor.Executor`) whose work is done by Ray tasks; used in a `with`.

    `address` is that of a running cluster that this machine is a node of ("auto", "HOST:PORT"); without one, one is
    started on this machine, reachable from it only, and ended on leaving. Each task takes `cpus` and `gpus` of a node
    and is run again up to `retries` times where its worker process or its node is lost. Functions are importable on
    every node, or are instances of such classes; items, functions and results are pickled.

    Entering and `map` raise InputError where Ray is missing, no cluster answers, its versions differ, no node has
    enough for one task, or shared memory is too small; OutsideError where tasks are lost, or fail with an exception
    that is none of Duckling's.
    """

    def __init__(
        self, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0, retries: int = 3,
        reporter: Reporter = SILENT,
    ) -> None:  # fmt: skip
        self.address = address
        self.cpus = cpus
        self.gpus = gpus
        self.retries = retries
        self.reporter = reporter
        self._ray: Any = None
        self._head = ("", 0)
        self._lost = False
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise InputError(MISSING) from error
        with contextlib.ExitStack() as undo:
            arguments = {"address": reached(self.address)} if self.address else undo.enter_context(local_cluster())
            undo.callback(ray.shutdown, **({} if self.address else {"wait_for_processes": True}))
            try:
                with own_signals(), loopback():
                    ray._private.worker._worker_logs_enabled = False  # it prints lost workers and nodes; we tell them
                    ray.init(**arguments, log_to_driver=False, logging_level="CRITICAL")
            except (
                Exception
            ) as error:  # Ray documents no classes: of ValueError, RuntimeError, ConnectionError, RayError
                raise InputError(f"{self._where}: Ray cannot be used: {one_line(error)}") from error
            self._ray = ray
            self._head = host_and_port(ray.get_runtime_context().gcs_address)
            if not self.slots:
                raise InputError(f"{self._where}: {self._too_little()}")
            self.reporter.say(f"{self._where}: {len(self._nodes())} nodes, {self.slots} tasks at once")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
        self._ray = None

    @property
    def slots(self) -> int:
        """Return how many tasks the cluster's nodes can run at once."""
        needed = [(name, amount) for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount]
        return sum(
            min((int(node.get(name, 0) / amount + 1e-9) for name, amount in needed), default=1)
            for node in self._nodes()
        )

    def map(self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool) -> Results[R]:
        """Yield as `Executor.map` says. What has begun when it is closed is interrupted, and waited for."""
        with contextlib.closing(self.attempt(function, items, ordered=ordered)) as results:
            for number, result in results:
                if isinstance(result, DucklingError):
                    raise result
                yield number, result

    def attempt(
        self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool = False
    ) -> Results[R | DucklingError]:
        """Yield as `map`, but a task's error as its result: the other tasks go on."""
        task = self._ray.remote(_call).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, scheduling_strategy="SPREAD",
            runtime_env={"env_vars": worker_environment(self.cpus)},
        )  # fmt: skip
        limit = max(1, self.slots) * IN_FLIGHT
        pending: dict[Any, int] = {}
        try:
            shared = self._ray.put(function)
            for number, item in enumerate(items):
                pending[task.remote(shared, item)] = number
                if len(pending) >= limit:
                    yield self._next(pending, ordered)
            while pending:
                yield self._next(pending, ordered)
        finally:
            self._end(pending)

    def _next(self, pending: dict[Any, int], ordered: bool) -> tuple[int, Any]:
        """Take the first task, or the first one that is done, out of `pending`. Returns its number and result."""
        wanted = [next(iter(pending))] if ordered else list(pending)
        looked = able = time.monotonic()
        while True:
            done, _ = self._ray.wait(wanted, num_returns=1, timeout=POLL, fetch_local=False)
            if done:
                break
            if (now := time.monotonic()) < looked + 1:
                continue
            looked = now
            if not self._answers():
                self._lost = True
                raise OutsideError(f"{self._where}: the cluster's head was lost; call again when there is one.")
            if self.slots:
                able = now
            elif now > able + PATIENCE:
                raise OutsideError(f"{self._where}: {self._too_little()}; call again when there is one.")
        number = pending.pop(done[0])
        try:
            return number, self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            return number, self._told(error)

    def _end(self, pending: dict[Any, int]) -> None:
        """Interrupt what is left and wait for its end: afterwards nothing is written any more."""
        if self._lost:
            return
        with contextlib.suppress(self._ray.exceptions.RayError):
            for task in pending:
                self._ray.cancel(task, force=False)
            waiting = list(pending)
            while waiting and self.slots:
                _, waiting = self._ray.wait(waiting, timeout=POLL, fetch_local=False)

    def _answers(self) -> bool:
        """Return whether the head is there: without it, Ray ends this process after a minute, with lines of its own."""
        for _ in range(3):
            with contextlib.suppress(OSError), socket.create_connection(self._head, REACH):
                return True
            time.sleep(1)
        return False

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    @property
    def _where(self) -> str:
        return f"Ray at {self.address}" if self.address else "Ray on this machine"

    def _too_little(self) -> str:
        """Return what a task needs and no node has."""
        have = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in self._nodes()]
        found = "; ".join(sorted(set(have), key=have.index)[:4]) or "none is left"
        return (
            f"a task needs a node with {self.cpus:g} CPUs and {self.gpus:g} GPUs; expected one, the nodes have: {found}"
        )

    def _told(self, error: Exception) -> DucklingError:
        """Return the error that a task ended with as ours."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, DucklingError):
            return cause
        errors = self._ray.exceptions
        again = f"(run {self.retries + 1} times)" if self.retries else "(no retries)"
        if isinstance(error, errors.WorkerCrashedError | errors.NodeDiedError | errors.LocalRayletDiedError):
            lost = "node" if isinstance(error, errors.NodeDiedError) else "worker process"
            return OutsideError(f"{self._where}: a task's {lost} was lost {again}; call again to go on.")
        if isinstance(cause, ModuleNotFoundError):
            return OutsideError(f"{self._where}: {cause} on a node: install the same Duckling on each node.")
        return OutsideError(
            f"{self._where}: a task failed: {type(cause or error).__name__}: {one_line(cause or error)}"
        )


class OnRay:
    """An executor whose cluster is started, or connected to, when there is work; `closing` ends it."""

    def __init__(self, address: str | None, closing: contextlib.ExitStack, reporter: Reporter) -> None:
        self._address = address
        self._closing = closing
        self._reporter = reporter
        self._ray: RayExecutor | None = None

    def map(self, function: Callable[[T], R], items: Iterable[T], *, ordered: bool) -> Results[R]:
        """Yield as `Executor.map` says."""
        work = list(items)
        if work and self._ray is None:
            self._ray = self._closing.enter_context(RayExecutor(self._address, reporter=self._reporter))
        if self._ray is not None:
            yield from self._ray.map(function, work, ordered=ordered)


def worker_environment(cpus: float) -> dict[str, str]:
    """Return the environment variables of a worker whose task has so many CPUs: the driver's do not reach it."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(max(1, int(cpus))))
    fixed = {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false"}
    return fixed | threads | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def _call(function: Callable[[T], R], item: T) -> R:
    """Run in a worker."""
    return function(item)
