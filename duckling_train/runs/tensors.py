"""What stands in a safetensors file, read from its header alone and held against what a model needs.

A file may have the right SHA-256 and the wrong content: then it is refused here, by the name of a tensor, before a
number of it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular
from duckling_data.base.records import short
from duckling_train.config import TrainConfig
from duckling_train.model import build_model
from duckling_train.optimizer import MOMENTS
from duckling_train.precision import RECIPES

Layout = Mapping[str, tuple[torch.dtype | str, tuple[int, ...]]]
"""The dtype and the shape of each tensor, by its name. A dtype that no run writes stands under the file's name for it.
"""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
STEP = "step"
"""The optimizer's own count of its steps, a float32 beside the moments of each parameter."""


def parameters_of(config: TrainConfig) -> Layout:
    """Return the parameters of `config`'s model in the dtype that its precision keeps them in; a tied one once."""
    with torch.device("meta"):
        model = build_model(config)
    dtype = RECIPES[config.precision].weights
    return {name: (dtype, tuple(parameter.shape)) for name, parameter in model.named_parameters()}


def moments_of(config: TrainConfig) -> Layout:
    """Return the optimizer's state after a step of `config`'s model, under the names that a checkpoint gives it."""
    dtype = RECIPES[config.precision].state
    layout: dict[str, tuple[torch.dtype | str, tuple[int, ...]]] = {}
    for name, (_, shape) in parameters_of(config).items():
        layout[f"{STEP}/{name}"] = (torch.float32, ())
        layout |= {f"{moment}/{name}": (dtype, shape) for moment in MOMENTS}
    return layout


def read_layout(path: Path) -> Layout:
    """Return what a safetensors file holds. Raises InputError for another kind of file and for a damaged header."""
    try:
        open_regular(path).close()
        with safe_open(str(path), "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
            return {
                name: (DTYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        fault = "".join(character if character.isprintable() else "?" for character in first)
        raise InputError(f"{path} is no safetensors file that can be read ({fault})") from error


def check_layout(path: Path, expected: Layout) -> None:
    """Raise InputError, which names the first tensor that differs, unless the file holds exactly `expected`."""
    found = read_layout(path)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise InputError(f"{path}: {name} is missing; expected {_said(expected[name])}")
        if name not in expected:
            raise InputError(f"{path}: {_name(name)} was added: the model has no such tensor")
        if found[name] != expected[name]:
            raise InputError(f"{path}: {name} is {_said(found[name])}, expected {_said(expected[name])}")


def check_finite(path: Path) -> None:
    """Raise InputError, which names the tensor, where a file holds a number that is not finite."""
    with safe_open(str(path), "pt") as file:
        for name in file.keys():  # noqa: SIM118  # it is no dict
            if not bool(file.get_tensor(name).isfinite().all()):
                raise InputError(f"{path}: {name} holds a number that is not finite")


def _said(layout: tuple[torch.dtype | str, tuple[int, ...]]) -> str:
    return f"{layout[0]} {short(list(layout[1]))}"


def _name(name: str) -> str:
    """Return a tensor's name, which may be any text, as one short line."""
    return name if name.isprintable() and len(name) <= 60 else json.dumps(name)[:60]
