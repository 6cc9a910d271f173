"""What every engine's checkpoint holds: the weights and the optimizer's state, each a safetensors file, read strictly.

weights.safetensors      the model's parameters, in their own dtype, a tied one once
optimizer.safetensors    a tensor for each parameter and moment: `exp_avg/transformer.wte.weight`
values                   the sum of the losses since the last log, and its step
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError

from duckling_data.base.errors import InputError
from duckling_data.base.records import Count
from duckling_train.config import TrainConfig
from duckling_train.engines.base import DivergedError
from duckling_train.optimizers import STATE, STEP
from duckling_train.precision import RECIPES

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
ADVICE = "remove this checkpoint to resume from the one before it, or start again with --overwrite"

Tensors = dict[str, torch.Tensor]


class Values(msgspec.Struct):
    """What is read of the engine's values in `checkpoint.json`; the rest follows from the settings and the step."""

    running_loss: float
    """The sum of the losses since the last log."""
    last_logged: Count
    """The step of that log."""


def refuse_infinite(model: torch.nn.Module, bad_step: Callable[[], int]) -> None:
    """Raise DivergedError, which names the `bad_step`, where a weight is not finite."""
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise DivergedError(f"the weights are no longer finite at step {bad_step()}")


def weights_file(model: torch.nn.Module) -> bytes:
    """Return the content of `weights.safetensors`."""
    return safetensors.torch.save(
        {name: parameter.detach().cpu().contiguous().clone() for name, parameter in model.named_parameters()}
    )


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Set `model`'s parameters to the checkpoint's. Raises InputError for other tensors than the model's."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, tensor in read_tensors(checkpoint / WEIGHTS, parameters).items():
        parameters[name].copy_(tensor)


def read_optimizer(config: TrainConfig, model: torch.nn.Module, checkpoint: Path) -> Tensors:
    """Return what the checkpoint keeps of a run's optimizer, on the CPU: `step/NAME`, `exp_avg/NAME` and so on.

    Raises InputError for other tensors than the run's.
    """
    expected: Tensors = {}
    for name, parameter in model.named_parameters():
        moment = torch.empty_like(parameter, dtype=RECIPES[config.precision].state, device="meta")
        kinds = dict.fromkeys(STATE[config.optimizer], moment) | {STEP: torch.empty((), device="meta")}
        expected |= {f"{kind}/{name}": tensor for kind, tensor in kinds.items()}
    return read_tensors(checkpoint / OPTIMIZER, expected)


def read_tensors(path: Path, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Return a safetensors file's tensors. Raises InputError for other names, dtypes or shapes than `expected`."""
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
