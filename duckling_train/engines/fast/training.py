"""Runs that train together: K models in one computation, each with its own order of rows, clipping, update and hooks.

On a CPU several runs are divided among its cores: each core computes a batch of models on its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from duckling_data.base.records import decode
from duckling_train.config import TrainConfig
from duckling_train.engines.base import DivergedError, Hook, Job, LogLine
from duckling_train.engines.fast.arithmetic import ARITHMETICS
from duckling_train.engines.fast.order import Batches, learning_rate
from duckling_train.engines.fast.parameters import Parameters
from duckling_train.engines.fast.step import Step
from duckling_train.engines.fast.update import Update, make_update
from duckling_train.engines.fast.view import FastView
from duckling_train.engines.state import ADVICE, Values, load_weights, read_optimizer


class Run:
    """A job as it trains: its batches, losses, update and hooks."""

    view: FastView
    part: Part
    """What computes it."""
    number: int
    """Its model's in the part."""

    def __init__(self, job: Job, hooks: Sequence[Hook]) -> None:
        self.job, self.hooks = job, hooks
        self.batches = Batches(job.config, job.rows)
        self.update: Update | None = None
        self.running, self.last_logged = 0.0, 0
        """The sum of the losses since the last log, a float32 as the Trainer's, and that log's step."""
        self.losses: list[float] = []
        """The losses of the steps since the last log, of this process."""
        self.norm = 0.0
        self.ended: DivergedError | None = None

    def begin(self) -> None:
        """Let the hooks begin."""
        for hook in self.hooks:
            hook.begin(self.view)

    def end(self) -> None:
        """Let the hooks end."""
        for hook in self.hooks:
            hook.end(self.view)

    def show(self, step: int) -> None:
        """Let the hooks see the step. Raises DivergedError where a logged number is not finite, and what they raise."""
        due = step == 1 or step % self.job.config.logging_steps == 0
        if due:
            self._log(step)
        for hook in self.hooks:
            hook.step(self.view)
        if due:
            self.losses.clear()

    def _log(self, step: int) -> None:
        loss = self.running / (step - self.last_logged)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {self.bad_step()}")
        if not math.isfinite(self.norm):
            raise DivergedError(f"the gradient's norm is {self.norm} at step {step}")
        self.running, self.last_logged = 0.0, step
        for hook in self.hooks:
            hook.log(LogLine(step, loss, learning_rate(self.job.config, step), self.norm))

    def bad_step(self) -> int:
        """Return the first step since the last log whose loss is not finite, else the last."""
        last = self.view.step
        first = last - len(self.losses) + 1
        return next((first + n for n, loss in enumerate(self.losses) if not math.isfinite(loss)), last)


class Training:
    """Runs that train together."""

    def __init__(self, runs: Sequence[Run], start: int) -> None:
        self.config, self.start, self.step = runs[0].job.config, start, start
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
        self.parts = [Part(self.config, runs[first:end]) for first, end in itertools.pairwise(ends)]

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
            part.parameters.release()

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


class Part:
    """Runs whose models are computed in one batch."""

    def __init__(self, config: TrainConfig, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.parameters = Parameters([run.job.model for run in runs], torch.device(config.device))
        self.computation = Step(self.parameters, config, ARITHMETICS[config.arithmetic])
        for number, run in enumerate(runs):
            run.part, run.number = self, number
            update = make_update(self.parameters, number, run.job.config)
            if run.update is not None:
                update.load(run.update.tensors())
            run.update = update

    def take(self, step: int) -> None:
        """Take one step of every run."""
        drawn = [run.batches(step) for run in self.runs]
        device = self.parameters.weights.device
        ids = torch.stack([ids for ids, _ in drawn]).to(device)
        masks = [mask for _, mask in drawn if mask is not None]
        losses = self.computation.gradients(ids, torch.cat(masks).to(device) if masks else None)
        norms = self.computation.clip([run.job.config.max_grad_norm for run in self.runs])
        for run, loss, norm in zip(self.runs, losses.tolist(), norms.tolist(), strict=True):
            assert run.update is not None
            run.update.step(learning_rate(run.job.config, step))
            run.running = float(np.float32(run.running) + np.float32(loss))
            run.losses.append(loss)
            run.norm, run.view.step = norm, step
