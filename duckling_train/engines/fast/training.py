"""Runs that train together: K models in one computation, each with its own order of rows, clipping, update and hooks.

On a CPU several runs are divided among its cores: each core computes a batch of models on its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from duckling_data.base.records import decode
from duckling_train.config import TrainConfig
from duckling_train.engines.base import DivergedError
from duckling_train.engines.fast.run import FastView, Part, Run
from duckling_train.engines.state import ADVICE, Values, load_weights, read_optimizer

MakePart = Callable[[TrainConfig, Sequence[Run]], Part]


class Training:
    """Runs that train together."""

    def __init__(self, runs: Sequence[Run], start: int, make_part: MakePart = Part) -> None:
        self.config, self.start, self.step = runs[0].job.config, start, start
        self._make_part = make_part
        for run in runs:
            if run.job.start is not None:
                load_weights(run.job.model, run.job.start.path)
        self._place(runs)
        for run in runs:
            run.view = FastView(run, start)
            if (begun := run.job.start) is not None:
                assert run.update is not None
                run.update.load(read_optimizer(run.job.config, run.job.model, begun.path))
                values = decode(begun.state, Values, str(begun.path), ADVICE)
                run.running, run.last_logged = values.running_loss, values.last_logged

    def _place(self, runs: Sequence[Run]) -> None:
        """Bring these runs' models into buffers: on a CPU several runs are divided among its cores, one thread each."""
        self.runs, self.threads = list(runs), torch.get_num_threads() if self.config.device == "cpu" else 1
        count = min(self.threads, len(runs))
        ends = [round(len(runs) * part / count) for part in range(count + 1)]
        self.parts = [self._make_part(self.config, runs[first:end]) for first, end in itertools.pairwise(ends)]

    def train(self) -> None:
        """Take every step that is left. The models' parameters have memory of their own again afterwards."""
        try:
            if self.start < self.config.steps:
                self._steps()
        finally:
            self._release()

    def _steps(self) -> None:
        self._each(Run.begin)
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            while self.step < self.config.steps and self.runs:
                self.step += 1
                self._take(pool)
                self._each(lambda run: run.show(self.step))
        self._each(Run.end)

    def _take(self, pool: ThreadPoolExecutor) -> None:
        """Take one step of every run."""
        if len(self.parts) == 1:
            self.parts[0].take(self.step)
            return
        torch.set_num_threads(1)  # MKL's number is that of all threads
        try:
            list(pool.map(lambda part: part.take(self.step), self.parts))
        finally:
            torch.set_num_threads(self.threads)

    def _release(self) -> None:
        for part in self.parts:
            part.release()

    def _each(self, do: Callable[[Run], None]) -> None:
        """Do this for each run; one that diverges ends, the others go on without it.

        Another exception of one run's hooks is raised after all runs' hooks were called: all have seen the same step.
        """
        raised: list[BaseException] = []
        for run in self.runs:
            try:
                do(run)
            except DivergedError as error:
                run.ended = error
            except BaseException as error:
                raised.append(error)
        if raised:
            raise raised[0]
        going = [run for run in self.runs if run.ended is None]
        if going and len(going) < len(self.runs):
            self._release()
            self._place(going)
        self.runs = going
