"""A measurement of training in a process of its own: `python -m tests.support.timed_training JSON` prints its figures.

Imported here is only what a run imports itself, so that start-up and peak memory are a run's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckling_train.config import TrainConfig
from duckling_train.engines import FAST, load_engine
from duckling_train.engines.base import Engine, Hook, Job, StepView
from tests.support.machine import machine, peak_mb, synchronize

if TYPE_CHECKING:
    from duckling_train.engines.fast.graph import Graphs

SEED, MACHINE = "seed", "machine"
PARTS = {"embeddings": "_embedded", "body": "", "head with its gradient": "_losses",
         "gradients of the embeddings": "_embedding_gradients", "clip": "clip", "update": ""}  # fmt: skip
"""Parts of the fast engine's step by the methods of `Step` that they are; two are other classes' own."""
ROOM = 1 << 33
"""Bytes of an accelerator that rows may take: any that are measured."""
BACKWARD, REST = "backward of the body, and copies", "rows, log, hooks"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What to measure."""

    kind: str
    """An engine's name, `seed` for the seed's cells, or `machine` for the machine alone."""
    settings: Figures = field(default_factory=dict)
    """Keywords of TrainConfig; its steps are what the engine is told, so that it does what it does for a whole run."""
    jobs: int = 1
    """Models at once, each with a seed of its own."""
    steps: int = 60
    seconds: float = 60.0
    """After so many it ends early, once a block is whole."""
    warm: int = 5
    """Steps before the first block."""
    block: int = 5
    """Steps of a block."""
    parts: bool = False
    """Whether to time the parts of the fast engine's step, which slows it a little."""
    workspace: str | None = None
    """Where rows are; rows are drawn at random where it has none that fit."""
    began: float = 0.0
    """When its process was started, as `time.time()` has it."""


class EnoughError(Exception):
    """The measurement is done."""


class Clock:
    """Reads wall and CPU time after the first step, after those that warm up, and after each block from there on."""

    def __init__(self, task: Task, begin: Callable[[], None] = lambda: None) -> None:
        self.task, self.begin = task, begin
        self.startup, self.marks = 0.0, list[tuple[int, float, float]]()

    def passed(self, step: int) -> bool:
        """Note that a step is done. Returns whether the measurement is, too."""
        task = self.task
        if step == 1:
            synchronize()
            self.startup = time.time() - task.began
        if step < task.warm or (step - task.warm) % task.block:
            return False
        synchronize()
        if not self.marks:
            self.begin()
        self.marks.append((step, time.perf_counter(), time.process_time()))
        spent = self.marks[-1][1] - self.marks[0][1]
        return len(self.marks) > 1 and (step + task.block > task.steps or spent >= task.seconds)

    def figures(self) -> Figures:
        """Return what was read."""
        (first, began, cpu_began), (last, ended, cpu_ended) = self.marks[0], self.marks[-1]
        walls = [wall for _, wall, _ in self.marks]
        return {
            "steps_per_second": self.task.block
            / statistics.median(after - before for before, after in itertools.pairwise(walls)),
            "ms": (ended - began) * 1e3 / (last - first),
            "cpu_ms": (cpu_ended - cpu_began) * 1e3 / (last - first),
            "startup_seconds": self.startup,
            "peak_mb": peak_mb(),
        }


class ClockHook(Hook):
    """The clock on an engine."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def step(self, view: StepView) -> None:
        """Read the clock."""
        if self.clock.passed(view.step):
            raise EnoughError


def rows_for(config: TrainConfig, workspace: str | None) -> Any:
    """Return the workspace's rows where they have the config's context and vocabulary, else random ones."""
    import numpy as np

    from duckling_data.rows.read import Rows, open_rows
    from duckling_train.data import DATASET, PackedRows, fitting

    sizes = {"n_positions": config.n_positions, "vocab_size": config.vocab_size}
    if workspace is not None and fitting(Path(workspace)) == sizes:
        return PackedRows(open_rows(Path(workspace) / DATASET))
    shape = max(256, 8 * config.batch_size), config.n_positions
    return PackedRows(
        Rows([np.random.default_rng(0).integers(config.vocab_size * 3 // 4, size=shape, dtype=np.uint16)])
    )


def with_graphs(graphs: Graphs | None) -> Engine:
    """Return the fast engine as it is on a GPU, its steps captured by `graphs`; None computes each anew."""
    from duckling_train.engines.fast.engine import FastEngine
    from duckling_train.engines.fast.graph import DevicePart

    return FastEngine(lambda config, runs: DevicePart(config, runs, graphs, ROOM))


def measure_engine(task: Task, graphs: Any = None) -> Figures:
    """Train by an engine until there are enough figures, from the same preparations as a run's.

    `graphs` are those of the fast engine (None: CUDA's on a GPU). Parts are timed without: a graph has none.
    """
    import torch

    engine = load_engine(task.kind)
    if task.kind == FAST and graphs is None and task.settings["device"] == "cuda":
        from duckling_train.engines.fast.graph import CudaGraphs

        graphs = CudaGraphs()
    if graphs is not None:
        engine = with_graphs(None if task.parts else graphs)
    config = engine.checked(TrainConfig(engine=task.kind, **task.settings))
    if config.threads:
        torch.set_num_threads(config.threads)
    rows = rows_for(config, task.workspace)
    engine.prove(config, rows)
    parts: dict[str, float] = {}
    clock = Clock(task, parts.clear)
    with timed_parts(parts) if task.parts else contextlib.nullcontext(), tempfile.TemporaryDirectory() as folder:
        configs = [dataclasses.replace(config, seed=config.seed + number) for number in range(task.jobs)]
        jobs = [Job(each, engine.build(each), rows, Path(folder)) for each in configs]
        hooks: list[list[Hook]] = [[] for _ in jobs[1:]] + [[ClockHook(clock)]]
        with contextlib.suppress(EnoughError):
            engine.fit(jobs, hooks)
    chosen = "torch's own" if config.arithmetic == "auto" else config.arithmetic
    chosen += ", compiled" if config.compile == "yes" else ""
    figures = clock.figures() | {"chosen": chosen, "replays": getattr(graphs, "replays", 0)}
    if task.parts:
        count = clock.marks[-1][0] - clock.marks[0][0]
        figures["parts_ms"] = spread({name: seconds * 1e3 / count for name, seconds in parts.items()}, figures["ms"])
    if config.device == "cuda":
        figures["peak_mb"] = torch.cuda.max_memory_reserved() / 1e6
    return figures


@contextlib.contextmanager
def timed_parts(seconds: dict[str, float]) -> Iterator[None]:
    """Add to `seconds` what the parts of the fast engine's steps take, and as `gradients` what those of one do."""
    from duckling_train.engines.fast.body import Body
    from duckling_train.engines.fast.step import Step
    from duckling_train.engines.fast.update import ByParameter, FlatAdamW, FusedAdamW

    places: list[tuple[type, str, str]] = [(Step, method, part) for part, method in PARTS.items() if method]
    places += [(Step, "gradients", "gradients"), (Body, "__call__", "body")]
    places += [(kind, "step", "update") for kind in (FlatAdamW, FusedAdamW, ByParameter)]
    places.append((Step, "clip_at_once", "clip"))

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            synchronize()
            began = time.perf_counter()
            result = method(*arguments, **keywords)
            synchronize()
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began
            return result

        return call

    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for (owner, name, method), (_, _, part) in zip(before, places, strict=True):
        setattr(owner, name, timed(part, method))
    try:
        yield
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)


def spread(measured: dict[str, float], whole: float) -> dict[str, float]:
    """Return the milliseconds of a whole step by its parts, which sum to it."""
    of_a_step = {part: measured[part] for part in PARTS}
    inside = sum(of_a_step[part] for part in PARTS if part not in ("clip", "update"))
    of_a_step[BACKWARD] = measured["gradients"] - inside
    return of_a_step | {REST: whole - sum(of_a_step.values())}


def measure_seed(task: Task) -> Figures:
    """Train by the seed's own cells, under a clock that every Trainer made here gets."""
    import torch
    from transformers import Trainer, TrainerCallback

    from tests.support import seed_cells

    clock, made = Clock(task), Trainer.__init__
    assert task.workspace is not None
    if threads := task.settings.get("threads"):
        torch.set_num_threads(threads)

    class Reader(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop |= clock.passed(state.global_step)

    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        made(self, *arguments, **keywords)
        self.add_callback(Reader())

    Trainer.__init__ = init
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for name in ("token_mapping.json", "tokenized_dataset"):
            (Path(folder) / name).symlink_to((Path(task.workspace) / name).resolve())
        change = seed_cells.FP32 if task.settings["precision"] == "fp32" else None
        seed_cells.train(seed_cells.run_all_cells(Path(folder), change), Path(folder), task.steps)
    return clock.figures() | {"chosen": "torch's own"}


def measure(task: Task) -> Figures:
    """Do a task in this process. Returns its figures."""
    if task.kind == MACHINE:
        return machine(task.settings["device"], task.settings.get("threads"))
    return measure_seed(task) if task.kind == SEED else measure_engine(task)


if __name__ == "__main__":
    print("\n" + json.dumps(measure(Task(**json.loads(sys.argv[1])))))
