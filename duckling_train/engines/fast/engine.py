"""The fast engine: the same model, rows, schedule and update as the reference engine's, by a step of its own.

Jobs that differ in what one model alone sees (`VARIES`) are trained together (`training.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from duckling_data.base.errors import InputError
from duckling_train.config import TrainConfig, given, named
from duckling_train.data import PackedRows
from duckling_train.engines.base import DivergedError, Hook, Job
from duckling_train.engines.fast.arithmetic import choose_arithmetic
from duckling_train.engines.fast.compiled import need, usable
from duckling_train.engines.fast.graph import CudaGraphs, on_cuda
from duckling_train.engines.fast.order import Batches
from duckling_train.engines.fast.proof import prove
from duckling_train.engines.fast.run import Part, Run
from duckling_train.engines.fast.training import MakePart, Training
from duckling_train.gpt2 import Gpt2

if TYPE_CHECKING:
    from duckling_train.engines.base import Model

VARIES = ("seed", "data_seed", "learning_rate", "weight_decay", "max_grad_norm", "betas", "adam_epsilon")
"""Settings that may differ between jobs that train together."""


class FastEngine:
    """Its own step: see the package."""

    name = "fast"

    def __init__(self, make_part: MakePart | None = None) -> None:
        """`make_part` is what computes the models, for tests and measurements; None: as the device has it."""
        self._make_part = make_part

    def checked(self, config: TrainConfig) -> TrainConfig:
        """Return `config` with its arithmetic, and whether parts are compiled.

        Raises InputError for a setting that only the reference engine has, and where what is to be compiled cannot be.
        """
        only = f"give {given('engine', 'reference')}"
        for name in ("dropout", "report_to"):
            if (value := getattr(config, name)) != getattr(TrainConfig, name):
                raise InputError(f"{named(name)} is {value}, which the fast engine does not have: {only}")
        if config.processes > 1:
            raise InputError(f"torchrun started {config.processes} processes and the fast engine is one: {only}")
        if config.device not in ("cpu", "cuda"):
            raise InputError(f"{named('device')} is {config.device}, which the fast engine is not for: {only}")
        if config.arithmetic == "auto":
            config = replace(config, arithmetic=choose_arithmetic(config))
            if config.compile == "auto":
                can = config.device == "cpu" and usable(config.arithmetic)
                config = replace(config, compile="yes" if can else "no")
        if config.compile == "yes":
            if config.device != "cpu":
                raise InputError(f"{named('compile')} is yes, which is for a CPU: give {given('compile', 'no')}")
            need(config.arithmetic)
        return config

    def build(self, config: TrainConfig) -> Gpt2:
        """Return the model in plain torch."""
        torch.manual_seed(config.seed)
        return Gpt2(config)

    def prove(self, config: TrainConfig, rows: PackedRows, model: Model | None = None) -> None:
        """Raise InputError unless a step can be computed and its loss and gradients are the model's: see `proof.py`."""
        try:
            prove(config, Batches(config, rows)(1)[0], model, CudaGraphs() if config.device == "cuda" else None)
        except RuntimeError as error:  # of torch, for an operation that the device does not have
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(
                f"the fast engine fails on this machine ({reason}): give {given('engine', 'reference')}"
            ) from error

    def fit(self, jobs: Sequence[Job], hooks: Sequence[Sequence[Hook]]) -> list[DivergedError | None]:
        """Train each job's model in place, those together that can be."""
        jobs = [replace(job, config=self.checked(job.config)) for job in jobs]
        runs = [Run(job, watching) for job, watching in zip(jobs, hooks, strict=True)]
        together: dict[object, list[Run]] = {}
        for run in runs:
            start = run.job.start.step if run.job.start else 0
            together.setdefault((in_common(run.job.config), start, len(run.job.rows)), []).append(run)
        for (_, start, _rows), group in together.items():  # type: ignore[misc]
            made = on_cuda if group[0].job.config.device == "cuda" else Part
            Training(group, start, self._make_part or made).train()
        return [run.ended for run in runs]


ENGINE = FastEngine()


def in_common(config: TrainConfig) -> TrainConfig:
    """Return what a config must have in common with those of the runs that train together with it."""
    return replace(config, **{name: getattr(TrainConfig, name) for name in VARIES})
