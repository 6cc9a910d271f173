"""The Hugging Face Trainer with Duckling's checkpoints, and a stop where a loss is no number.

What the Trainer computes is untouched. It keeps the sum of the losses since the last log in `_tr_loss`; its own
checkpoints leave that out, so a log after a resumption would be wrong. Here it is saved and put back.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import Trainer
from transformers.trainer_callback import TrainerCallback

from duckling_data.base.errors import InputError
from duckling_train.engines.reference.restore import check_optimizer
from duckling_train.runs.callbacks import Progress
from duckling_train.runs.checkpoint import OPTIMIZER, TRAINER_STATE, WEIGHTS, Checkpoint, Checkpoints


class DivergedError(InputError):
    """A loss or a weight that is not a finite number: the settings do not train."""


@dataclass(frozen=True)
class Resumption:
    """Where checkpoints go, which one to go on from, and the run's clock, which stands while one is written."""

    checkpoints: Checkpoints
    start: Checkpoint | None
    clock: Progress


class DucklingTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose checkpoints resume bitwise; it raises DivergedError at the first loss that is not finite."""

    def __init__(self, *, resumption: Resumption, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._resumption = resumption
        self._losses: list[torch.Tensor] = []
        """The losses of the steps since the last log: read only when the log's mean is not finite."""
        if resumption.start is not None:
            self.add_callback(_RestoreRunningLoss(self, resumption.start.state))

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """Return the step's loss, and remember it without waiting for an accelerator."""
        loss: torch.Tensor = super().training_step(*arguments, **keywords)
        self._losses.append(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, unless the loss is not finite: then raise DivergedError with the step."""
        loss = logs.get("loss", logs.get("train_loss", 0.0))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {self._first_bad_step()}")
        norm = logs.get("grad_norm", 0.0)
        if not math.isfinite(norm):
            raise DivergedError(f"the gradient's norm is {norm} at step {self.state.global_step}")
        self._losses.clear()
        super().log(logs, start_time)

    def _first_bad_step(self) -> int:
        first: int = self.state.global_step - len(self._losses) + 1
        bad = (first + index for index, loss in enumerate(self._losses) if not math.isfinite(loss.item()))
        return next(bad, int(self.state.global_step))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise DivergedError(f"the weights are no longer finite at step {self._first_bad_step()}")
        with self._resumption.clock.paused():
            if self.args.should_save:
                self._resumption.checkpoints.write(self.state.global_step, self._files(), self._values())
            self.accelerator.wait_for_everyone()

    def _files(self) -> dict[str, bytes]:
        return {
            WEIGHTS: safetensors.torch.save(_named_weights(self.model)),
            OPTIMIZER: safetensors.torch.save(self._optimizer_tensors()),
            TRAINER_STATE: _trainer_state(self.state),
        }

    def _values(self) -> dict[str, Any]:
        return {
            "running_loss": self._tr_loss.item(),
            "last_logged": self._globalstep_last_logged,
            "seconds": self._resumption.clock.seconds,
            "groups": [_without_parameters(group) for group in self.optimizer.state_dict()["param_groups"]],
            "schedule": self.lr_scheduler.state_dict(),
        }

    def _optimizer_tensors(self) -> dict[str, torch.Tensor]:
        names = self._names_in_the_optimizers_order()
        state = self.optimizer.state_dict()["state"]
        return {
            f"{moment}/{names[index]}": tensor.detach().cpu().contiguous()
            for index, moments in state.items()
            for moment, tensor in moments.items()
        }

    def _names_in_the_optimizers_order(self) -> list[str]:
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [names[id(parameter)] for group in self.optimizer.param_groups for parameter in group["params"]]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        start = self._resumption.start
        if checkpoint is None or start is None:
            return
        own = self.optimizer.state_dict()["param_groups"]
        check_optimizer(start, [_without_parameters(group) for group in own], self.lr_scheduler.state_dict())
        tensors = safetensors.torch.load_file(Path(checkpoint) / OPTIMIZER)
        index = {name: number for number, name in enumerate(self._names_in_the_optimizers_order())}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            moment, name = key.split("/", 1)
            state.setdefault(index[name], {})[moment] = tensor
        groups = [
            {**group, "betas": tuple(group["betas"]), "params": current["params"]}
            for group, current in zip(start.state["groups"], own, strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.lr_scheduler.load_state_dict(start.state["schedule"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing random is left to draw: see `checkpoint.py`."""


class _RestoreRunningLoss(TrainerCallback):  # type: ignore[misc]
    """Puts back the losses summed since the last log: the Trainer sets them to 0 right before `on_train_begin`."""

    def __init__(self, trainer: DucklingTrainer, state: dict[str, Any]) -> None:
        self.trainer = trainer
        self.state = state

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore."""
        self.trainer._tr_loss.fill_(self.state["running_loss"])
        self.trainer._globalstep_last_logged = self.state["last_logged"]


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Set `model`'s parameters to the checkpoint's."""
    weights = safetensors.torch.load_file(checkpoint / WEIGHTS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def _named_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters by name on the CPU, a tied one once."""
    return {name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()}


def _without_parameters(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _trainer_state(state: Any) -> bytes:
    """Return the Trainer's counters as it saves them; not its history, which the run's logs hold."""
    counters = dataclasses.asdict(dataclasses.replace(state, log_history=[], stateful_callbacks={}))
    return (json.dumps(counters, indent=2, sort_keys=True) + "\n").encode()
