"""Training on a GPU: a step with its update is a CUDA graph, captured once and replayed, and nothing waits for it.

What changes from step to step reaches the graph through tensors: the rows (`feed.py`), the learning rates, and AdamW's
own count of steps. A graph is captured for each kind of step that comes again: what hooks need, and how many rows. The
first steps of a kind are computed without one, which also prepares the libraries for the capture. Losses and norms stay
on the device until a log, a hook or a checkpoint asks for them.

An update other than AdamW's in float32 is not in the graph: it follows each replay, as on a CPU. Those are all other
optimizers, and AdamW in the precisions whose weights are bf16.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from duckling_data.base.errors import InputError
from duckling_train.config import TrainConfig, given
from duckling_train.engines.fast.feed import Feed, send
from duckling_train.engines.fast.order import learning_rate
from duckling_train.engines.fast.run import Part, Run
from duckling_train.engines.fast.update import FusedAdamW

WARM = 2
"""Steps of a kind before its graph."""
MOST = 8
"""Graphs of one training; further kinds of steps are computed without."""
SHARE = 4
"""Rows are kept on the device if they take at most one part in so many of its free memory."""
Work = Callable[[], None]
Kind = tuple[int, tuple[frozenset[str], ...]]
"""Rows a model, and what each model's hooks need."""


class Graphs(Protocol):
    """What captures work, and repeats it."""

    def warm(self, work: Work) -> None:
        """Do the work as it will be captured."""

    def capture(self, work: Work) -> Work:
        """Return what repeats the work's operations on the same memory. Until then nothing is computed."""


class CudaGraphs:
    """CUDA graphs of one memory pool, of which one runs at a time: those of one DevicePart.

    Torch does not take a pool again once all graphs in it are gone.
    """

    def __init__(self) -> None:
        self.replays = 0
        """How often a graph was replayed."""
        self._stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def warm(self, work: Work) -> None:
        """Do the work on the stream on which it will be captured."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream().wait_stream(self._stream)

    def capture(self, work: Work) -> Work:
        """Return a graph's replay. Raises InputError where the work cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        try:  # thread_local: threads of hooks may use the device meanwhile
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(
                f"the fast engine's step cannot be captured here ({reason}): give {given('engine', 'reference')}"
            ) from error

        def replay() -> None:
            graph.replay()
            self.replays += 1

        return replay


class DevicePart(Part):
    """Runs whose models are computed in one batch, their steps captured by `graphs`; None computes each anew."""

    fused = True

    def __init__(self, config: TrainConfig, runs: Sequence[Run], graphs: Graphs | None, room: int) -> None:
        """`room` are the bytes of the device that rows may take."""
        super().__init__(config, runs)
        weights, norms = self.parameters.weights, [run.job.config.max_grad_norm for run in runs]
        self._feed = Feed([run.batches for run in runs], weights.device, room)
        self._rates = torch.zeros(len(runs), device=weights.device)
        self._largest = torch.tensor(norms, dtype=weights.dtype, device=weights.device)
        self._graphs = graphs
        self._captured: dict[Kind, tuple[Work, torch.Tensor, tuple[Any, ...]]] = {}
        self._seen = Counter[Kind]()
        self._numbers: torch.Tensor
        """Losses and norms of a step, float32[2, K], where it was computed."""
        self._unread: list[torch.Tensor] = []

    def take(self, step: int) -> None:
        """Take one step of every run."""
        rates = [learning_rate(run.job.config, step) for run in self.runs]
        send(torch.tensor(rates), self._rates)
        self._do((self._feed.fill(step), tuple(run.needs_at(step) for run in self.runs)))
        self._unread.append(self._numbers.clone())
        for run, rate in zip(self.runs, rates, strict=True):
            assert run.update is not None
            if not isinstance(run.update, FusedAdamW):
                run.update.step(rate)
            run.view.step = step

    def _do(self, kind: Kind) -> None:
        """Do a step of a kind: by its graph, if it has come as often as one needs."""
        work = functools.partial(self._work, *kind)
        self._seen[kind] += 1
        if self._graphs is None:
            work()
        elif kind not in self._captured and (self._seen[kind] <= WARM or len(self._captured) == MOST):
            self._graphs.warm(work)
        else:
            if kind not in self._captured:
                replay = self._graphs.capture(work)
                self._captured[kind] = replay, self._numbers, self.computation.results
            replay, self._numbers, self.computation.results = self._captured[kind]
            replay()

    def _work(self, count: int, needed: tuple[frozenset[str], ...]) -> None:
        losses = self.computation.gradients(*self._feed(count), needed)
        norms = self.computation.clip_at_once(self._largest)
        for run, rate in zip(self.runs, self._rates, strict=True):
            if isinstance(run.update, FusedAdamW):
                run.update.step(rate)
        self._numbers = torch.stack([losses, norms.float()])

    def read(self) -> None:
        """Give the runs the losses and norms of all steps taken."""
        if self._unread:
            for losses, norms in torch.stack(self._unread).tolist():
                for run, loss, norm in zip(self.runs, losses, norms, strict=True):
                    run.took(loss, norm)
            self._unread.clear()

    def release(self) -> None:
        """Read, free what is on the device, give the models' parameters memory of their own again."""
        self.read()
        self._captured.clear()
        self._feed.release()
        super().release()


def on_cuda(config: TrainConfig, runs: Sequence[Run]) -> DevicePart:
    """Return what computes runs on a GPU."""
    return DevicePart(config, runs, CudaGraphs(), torch.cuda.mem_get_info()[0] // SHARE)
