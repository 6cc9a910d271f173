"""The Trainer's state in a checkpoint: weights, AdamW's state, counters, and the losses summed since the last log.

    weights.safetensors      the model's parameters, in their own dtype, a tied one once
    optimizer.safetensors    a tensor for each parameter and moment: `exp_avg/transformer.wte.weight`
    trainer_state.json       the Trainer's own counters

There is no random state in it: no dropout draws, an epoch's order of rows comes from the seed and the epoch alone, and
stochastic rounding from the seed and the step. Loading is strict: other tensors than the run's own are refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from transformers.trainer_callback import TrainerState

from duckling_data.base.errors import InputError
from duckling_data.base.records import Count, decode, read_record
from duckling_train.engines.base import Checkpoint, EngineState
from duckling_train.precision import MOMENTS

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
TRAINER_STATE = "trainer_state.json"  # the name that the Trainer reads
STEP = "step"
"""AdamW's own count of its steps, a float32 beside the moments of each parameter."""
ADVICE = "remove this checkpoint to resume from the one before it, or start again with --overwrite"

Tensors = dict[str, torch.Tensor]


class _Group(msgspec.Struct):
    """What changes in a group of parameters while a run trains; the rest of it follows from the settings."""

    lr: float


class Values(msgspec.Struct):
    """The engine's values in `checkpoint.json`."""

    running_loss: float
    """The sum of the losses since the last log."""
    last_logged: Count
    """The step of that log."""
    groups: list[_Group]


class _Counters(msgspec.Struct):
    global_step: int


def values_of(checkpoint: Checkpoint) -> Values:
    """Return a checkpoint's values. Raises InputError where they, or the Trainer's counters, are of another kind."""
    counters = read_record(checkpoint.path / TRAINER_STATE, _Counters, ADVICE)
    if (step := counters.global_step) != checkpoint.step:
        raise InputError(f"{checkpoint.path / TRAINER_STATE}: global_step {step}, expected {checkpoint.step}; {ADVICE}")
    return decode(checkpoint.state, Values, str(checkpoint.path), ADVICE)


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Set `model`'s parameters to the checkpoint's. Raises InputError for other tensors than the model's."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, tensor in _read_tensors(checkpoint / WEIGHTS, parameters).items():
        parameters[name].copy_(tensor)


def learning_rates(checkpoint: Checkpoint, groups: int) -> list[float]:
    """Return the learning rate of each of the optimizer's groups. Raises InputError as `values_of` does."""
    rates = [group.lr for group in values_of(checkpoint).groups]
    if len(rates) != groups:
        raise InputError(f"{checkpoint.path}: {len(rates)} groups of parameters, expected {groups}; {ADVICE}")
    return rates


def load_moments(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, dtype: torch.dtype, checkpoint: Path
) -> dict[int, Tensors]:
    """Return AdamW's state as the optimizer's `load_state_dict` takes it; `dtype` is that of the moments.

    Raises InputError for other tensors than a step of this optimizer leaves.
    """
    names, shapes = parameter_names(model, optimizer), dict(model.named_parameters())
    expected: Tensors = {f"{STEP}/{name}": torch.empty((), device="meta") for name in names}
    for name in names:
        moment = torch.empty_like(shapes[name], dtype=dtype, device="meta")
        expected |= {f"{kind}/{name}": moment for kind in MOMENTS}
    tensors = _read_tensors(checkpoint / OPTIMIZER, expected)
    return {number: {kind: tensors[f"{kind}/{name}"] for kind in (STEP, *MOMENTS)} for number, name in enumerate(names)}


def engine_state(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: dict[str, Any], counters: TrainerState,
    *, running_loss: float, last_logged: int,
) -> EngineState:  # fmt: skip
    """Return what a checkpoint keeps of a run; its tensors are copied to the CPU."""
    weights = {name: _on_cpu(parameter) for name, parameter in model.named_parameters()}
    saved, names = optimizer.state_dict(), parameter_names(model, optimizer)
    moments = {
        f"{kind}/{names[number]}": _on_cpu(tensor)
        for number, kinds in saved["state"].items()
        for kind, tensor in kinds.items()
    }
    # Not the Trainer's history of logs, which the run's own logs hold.
    kept = dataclasses.asdict(dataclasses.replace(counters, log_history=[], stateful_callbacks={}))  # type: ignore[arg-type]
    files = {
        WEIGHTS: safetensors.torch.save(weights),
        OPTIMIZER: safetensors.torch.save(moments),
        TRAINER_STATE: (json.dumps(kept, indent=2, sort_keys=True) + "\n").encode(),
    }
    values = {
        "running_loss": running_loss,
        "last_logged": last_logged,
        "groups": [_without_parameters(group) for group in saved["param_groups"]],
        "schedule": schedule,
    }
    return EngineState(files, values)


def parameter_names(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the model's parameters in the optimizer's order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _read_tensors(path: Path, expected: Mapping[str, torch.Tensor]) -> Tensors:
    try:
        found = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: not a safetensors file that can be read ({reason}); {ADVICE}") from error
    for name in sorted(expected.keys() | found.keys()):
        here, wanted = _layout(found.get(name)), _layout(expected.get(name))
        if here != wanted:
            raise InputError(f"{path}: tensor {name[:60]} is {here}, expected {wanted}; {ADVICE}")
    return found


def _layout(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _without_parameters(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}
