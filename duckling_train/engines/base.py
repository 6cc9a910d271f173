"""What an engine is: it trains one or more jobs, and shows each job's hooks every optimizer step.

An engine owns the arithmetic and the state that a checkpoint keeps of it. All else is a hook: metrics, progress,
evaluation, checkpoints, recordings. A hook sees a run through a StepView alone, and so works on any engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from duckling_data.base.errors import InputError
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from duckling_train.gpt2 import Gpt2

    Model = GPT2LMHeadModel | Gpt2

GRADIENT, GRADIENT_PARTS = "gradient", "gradient parts"
HIDDEN, PROBABILITIES = "hidden", "probabilities"
"""What an engine keeps of a step only for a hook that needs it (`Hook.needs`)."""


class DivergedError(InputError):
    """A loss, a gradient or a weight is not a finite number: the settings do not train."""


@dataclass(frozen=True)
class EngineState:
    """What an engine needs, besides a job's settings and data, to resume bitwise after a step."""

    files: dict[str, bytes]
    """The content of its files in a checkpoint, by name."""
    values: dict[str, Any]
    """JSON, for the checkpoint's own record."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk: its directory, the optimizer steps done, and the engine's values."""

    path: Path
    step: int
    state: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run to train."""

    config: TrainConfig
    """Its settings, the device and the threads resolved."""
    model: Model
    """In the dtype of the precision; trained in place. What `Engine.build` returns will do, any GPT2LMHeadModel too."""
    rows: PackedRows
    run_dir: Path
    """The run's directory; its name is the run's."""
    start: Checkpoint | None = None
    """None starts at step 0."""


@dataclass(frozen=True)
class LogLine:
    """What is logged at step 1 and every `logging_steps` steps."""

    step: int
    loss: float
    """The mean since the last log, in nats a token."""
    learning_rate: float
    grad_norm: float | None
    """The gradient's global norm before clipping; None where the engine does not compute it."""


class StepView(ABC):
    """What a hook sees of its run after an optimizer step. Nothing is computed or copied until it is asked for.

    Tensors are the engine's own, on its device, and change with the next step: copy what is to be kept.
    """

    step: int = 0
    """Optimizer steps done."""

    @property
    @abstractmethod
    def model(self) -> Model:
        """The model as it is after the step: the job's own."""

    @property
    def W(self) -> torch.Tensor:  # noqa: N802  # the field's name for it
        """The embedding matrix after the step, [vocabulary, width], in the weights' dtype."""
        return self.model.transformer.wte.weight.detach()

    @property
    @abstractmethod
    def loss(self) -> float | None:
        """The loss of the step's batch (nats a token); waits for an accelerator. None before the first step."""

    @property
    @abstractmethod
    def gradient(self) -> torch.Tensor | None:
        """The gradient of W in the step, after clipping, [vocabulary, width]. None unless a hook needs GRADIENT."""

    @property
    @abstractmethod
    def gradient_parts(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The gradient by W as the input's embedding and as the softmax matrix, after clipping, as `gradient` is.

        Tied, they add up to `gradient`, but for rounding: a row that is no input has exactly 0 in the first and its
        gradient's bits in the second. Untied, the second is the gradient of `lm_head`. None unless a hook needs
        GRADIENT_PARTS, and of a tied W that several processes train: each knows the parts of its own rows alone.
        """

    @property
    @abstractmethod
    def probabilities(self) -> torch.Tensor | None:
        """The mean softmax probability of each row of W in the step's forward pass, float32[vocabulary].

        The mean is that of the batch's predicting positions, rows · (context − 1); of several processes, the first
        one's. None unless a hook needs PROBABILITIES.
        """

    @property
    @abstractmethod
    def moments(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """AdamW's two moments of W after the step, [vocabulary, width]. None before the first step, and for SGD."""

    @property
    @abstractmethod
    def hidden(self) -> torch.Tensor | None:
        """The batch's final hidden states, after `ln_f`, [rows, context, width]. None unless a hook needs HIDDEN."""

    @property
    def logits_of(self) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None:
        """How the engine itself computes the logits of int64[rows, context] ids under a mask; None: by `model`."""
        return None

    @abstractmethod
    def state(self) -> EngineState:
        """Return what a checkpoint has to keep of the engine, its tensors copied to the CPU."""


class Hook:
    """Watches one run. Every method may be left out; an exception ends the run."""

    needs: frozenset[str] = frozenset()
    """Any of GRADIENT, GRADIENT_PARTS, HIDDEN and PROBABILITIES: all that the hook ever needs."""

    def needs_at(self, step: int) -> frozenset[str]:
        """Return what of `needs` the hook needs of this step; it is asked before the step."""
        return self.needs

    def begin(self, view: StepView) -> None:
        """Called before the first step; `view.step` is the step that the run starts from."""

    def log(self, line: LogLine) -> None:
        """Called at every log, before `step` of the same step."""

    def step(self, view: StepView) -> None:
        """Called after every optimizer step."""

    def save(self) -> None:
        """Called before a checkpoint is written: what the hook has of the steps so far must be on disk."""

    def end(self, view: StepView) -> None:
        """Called after the last step; not where an exception ended the run."""

    def close(self) -> None:
        """Called when the run has ended, however it did."""


class Engine(Protocol):
    """Trains models. `engines.load_engine` returns one by its name."""

    name: str

    def checked(self, config: TrainConfig) -> TrainConfig:
        """Return `config`, its device resolved, with what the engine chooses on this machine. Nothing is written.

        Raises InputError, naming the setting, for settings that the engine cannot honour.
        """

    def build(self, config: TrainConfig) -> Model:
        """Return a fresh model, drawn from the config's seed: a GPT2LMHeadModel, or a Gpt2 of the same parameters."""

    def prove(self, config: TrainConfig, rows: PackedRows, model: Model | None = None) -> None:
        """Raise InputError where the engine does not compute here what `model` does (None: a fresh one of the config).

        The start of each run asks.
        """

    def fit(self, jobs: Sequence[Job], hooks: Sequence[Sequence[Hook]]) -> list[DivergedError | None]:
        """Train each job's model in place, from its start up to `config.steps`, under the hooks of the same number.

        Returns for each job None, or why it ended early: a loss, gradient norm or weight that is not finite. It ends no
        other job. Raises InputError for a start that does not fit the job, and what a hook raises.
        """
