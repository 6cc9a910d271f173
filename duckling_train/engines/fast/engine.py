"""The fast engine: the same model, rows, schedule and update as the reference engine's, by a step of its own.

Jobs that differ in what one model alone sees (`VARIES`) are trained together, K models in one computation; each has its
own weights, order of rows, clipping, update and hooks, and one that diverges ends alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch

from duckling_data.base.errors import InputError
from duckling_data.base.records import decode
from duckling_train.config import TrainConfig, given, named
from duckling_train.data import PackedRows
from duckling_train.engines.base import DivergedError, EngineState, Hook, Job, LogLine, StepView
from duckling_train.engines.fast.arithmetic import ARITHMETICS, choose_arithmetic
from duckling_train.engines.fast.order import Batches, learning_rate
from duckling_train.engines.fast.parameters import Parameters
from duckling_train.engines.fast.proof import prove
from duckling_train.engines.fast.step import Step
from duckling_train.engines.fast.update import Update, make_update
from duckling_train.engines.state import (
    ADVICE,
    OPTIMIZER,
    WEIGHTS,
    Values,
    load_weights,
    read_optimizer,
    refuse_infinite,
    weights_file,
)
from duckling_train.gpt2 import Gpt2
from duckling_train.optimizers import MOMENTS

if TYPE_CHECKING:
    from duckling_train.engines.base import Model

VARIES = ("seed", "data_seed", "learning_rate", "weight_decay", "max_grad_norm", "betas", "adam_epsilon")
"""Settings that may differ between jobs that train together."""
WTE = "transformer.wte.weight"


class Run:
    """A job as it trains: its batches, losses, update and hooks."""

    view: FastView
    number: int
    """Its model's in `Parameters`."""

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


class FastEngine:
    """Its own step: see the package."""

    name = "fast"

    def checked(self, config: TrainConfig) -> TrainConfig:
        """Return `config` with its arithmetic. Raises InputError for a setting that only the reference engine has."""
        only = f"give {given('engine', 'reference')}"
        for name in ("dropout", "report_to"):
            if (value := getattr(config, name)) != getattr(TrainConfig, name):
                raise InputError(f"{named(name)} is {value}, which the fast engine does not have: {only}")
        if config.processes > 1:
            raise InputError(f"torchrun started {config.processes} processes and the fast engine is one: {only}")
        if config.device not in ("cpu", "cuda"):
            raise InputError(f"{named('device')} is {config.device}, which the fast engine is not for: {only}")
        return replace(config, arithmetic=choose_arithmetic(config)) if config.arithmetic == "auto" else config

    def build(self, config: TrainConfig) -> Gpt2:
        """Return the model in plain torch."""
        torch.manual_seed(config.seed)
        return Gpt2(config)

    def prove(self, config: TrainConfig, rows: PackedRows) -> None:
        """Raise InputError unless a step's loss and gradients are the model's own: see `proof.py`."""
        prove(config, Batches(config, rows)(1)[0])

    def fit(self, jobs: Sequence[Job], hooks: Sequence[Sequence[Hook]]) -> list[DivergedError | None]:
        """Train each job's model in place, those together that can be."""
        jobs = [replace(job, config=self.checked(job.config)) for job in jobs]
        runs = [Run(job, watching) for job, watching in zip(jobs, hooks, strict=True)]
        together: dict[object, list[Run]] = {}
        for run in runs:
            start = run.job.start.step if run.job.start else 0
            together.setdefault((in_common(run.job.config), start, len(run.job.rows)), []).append(run)
        for (_, start, _rows), group in together.items():  # type: ignore[misc]
            Training(group, start).train()
        return [run.ended for run in runs]


ENGINE = FastEngine()


def in_common(config: TrainConfig) -> TrainConfig:
    """Return what a config must have in common with those of the runs that train together with it."""
    return replace(config, **{name: getattr(TrainConfig, name) for name in VARIES})


class Training:
    """Runs that train together."""

    def __init__(self, runs: Sequence[Run], start: int) -> None:
        self.config, self.start, self.step = runs[0].job.config, start, start
        for run in runs:
            if run.job.start is not None:
                load_weights(run.job.model, run.job.start.path)
        self._place(runs)
        for run in runs:
            run.view = FastView(self, run)
            if (begun := run.job.start) is not None:
                assert run.update is not None
                run.update.load(read_optimizer(run.job.config, run.job.model, begun.path))
                values = decode(begun.state, Values, str(begun.path), ADVICE)
                run.running, run.last_logged = values.running_loss, values.last_logged

    def _place(self, runs: Sequence[Run]) -> None:
        """Bring these runs' models into one buffer."""
        self.runs = list(runs)
        self.parameters = Parameters([run.job.model for run in runs], torch.device(self.config.device))
        self.computation = Step(self.parameters, self.config, ARITHMETICS[self.config.arithmetic])
        for number, run in enumerate(runs):
            run.number = number
            update = make_update(self.parameters, number, run.job.config)
            if run.update is not None:
                update.load(run.update.tensors())
            run.update = update

    def train(self) -> None:
        """Take every step that is left."""
        if self.start >= self.config.steps:
            return
        self._each(Run.begin)
        while self.step < self.config.steps and self.runs:
            self.step += 1
            self._take()
            self._each(lambda run: run.show(self.step))
        self._each(Run.end)
        self.parameters.release()

    def _take(self) -> None:
        """Take one step of every run."""
        drawn = [run.batches(self.step) for run in self.runs]
        device = self.parameters.weights.device
        ids = torch.stack([ids for ids, _ in drawn]).to(device)
        masks = [mask for _, mask in drawn if mask is not None]
        losses = self.computation.gradients(ids, torch.cat(masks).to(device) if masks else None)
        norms = self.computation.clip([run.job.config.max_grad_norm for run in self.runs])
        for run, loss, norm in zip(self.runs, losses.tolist(), norms.tolist(), strict=True):
            assert run.update is not None
            run.update.step(learning_rate(run.job.config, self.step))
            run.running = float(np.float32(run.running) + np.float32(loss))
            run.losses.append(loss)
            run.norm, run.view.step = norm, self.step

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
            self.parameters.release()
            self._place(going)
        self.runs = going


class FastView(StepView):
    """A step of one of the runs."""

    def __init__(self, training: Training, run: Run) -> None:
        self.training, self.run = training, run
        self.step = training.start

    @property
    def model(self) -> Model:
        """The job's own model: its parameters are the engine's."""
        return self.run.job.model

    @property
    def loss(self) -> float | None:
        """The batch's loss."""
        return self.run.losses[-1] if self.run.losses else None

    @property
    def gradient(self) -> torch.Tensor | None:
        """The gradient of W, after clipping."""
        if self.step == self.training.start:
            return None
        parameters = self.training.parameters
        return parameters.of(parameters.gradients, self.run.number)[WTE]

    @property
    def moments(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """AdamW's moments of W."""
        assert self.run.update is not None
        kept = self.run.update.state(WTE) if self.step else {}
        return (kept[MOMENTS[0]], kept[MOMENTS[1]]) if MOMENTS[0] in kept else None

    @property
    def hidden(self) -> torch.Tensor | None:
        """The batch's final hidden states."""
        hidden = self.training.computation.hidden
        return hidden[self.run.number] if hidden is not None else None

    def state(self) -> EngineState:
        """Return the weights, the optimizer's state, and what is summed since the last log."""
        run, model = self.run, self.run.job.model
        refuse_infinite(model, run.bad_step)
        assert run.update is not None
        tensors = {name: tensor.cpu().clone() for name, tensor in run.update.tensors().items()}
        files = {WEIGHTS: weights_file(model), OPTIMIZER: safetensors.torch.save(tensors)}
        return EngineState(files, {"running_loss": run.running, "last_logged": run.last_logged})
