"""What a checkpoint says about optimizer, schedule and counters, held against what this run's own would be.

All of it but the learning rate and the counters follows from the settings, so nothing is taken over on trust: a
checkpoint whose hashes are right and whose content is another's is refused in one line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerState

from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_data.base.strict_json import read_json
from duckling_train.config import TrainConfig
from duckling_train.runs.checkpoint import (
    CHECKPOINT,
    OPTIMIZER,
    RECORD_LIMIT,
    TRAINER_STATE,
    WEIGHTS,
    Checkpoint,
    instead,
)
from duckling_train.runs.tensors import check_layout, moments_of, parameters_of

RATE = "lr"
"""The one value of a parameter group that changes while a run trains."""


def check_content(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Raise InputError unless the checkpoint's tensors and counters are those of a run of `config`.

    Only headers are read; the optimizer's groups and the schedule are `check_optimizer`'s, once there are some.
    """
    if checkpoint.step > config.steps:
        raise InputError(
            f"{checkpoint.path} is of step {checkpoint.step:,} of {config.steps:,}: {instead(checkpoint.path)}"
        )
    last, seconds = checkpoint.state["last_logged"], checkpoint.state["seconds"]
    try:
        if not 0 <= last <= checkpoint.step or seconds < 0:
            raise InputError(f"{checkpoint.path / CHECKPOINT} has last_logged {last} and seconds {seconds}")
        check_layout(checkpoint.path / WEIGHTS, parameters_of(config))
        check_layout(checkpoint.path / OPTIMIZER, moments_of(config))
        _check_counters(checkpoint.path / TRAINER_STATE, {"global_step": checkpoint.step, "max_steps": config.steps})
    except InputError as error:
        raise InputError(f"{error}: {instead(checkpoint.path)}") from error


def _check_counters(path: Path, known: Mapping[str, int]) -> None:
    """Hold the Trainer's counters against their kinds in the library that reads them."""
    found, kinds = read_json(path, RECORD_LIMIT), dataclasses.asdict(TrainerState())
    _expect_keys(f"{path}:", found, kinds)
    for name, default in kinds.items():
        value = found[name]
        if name in known:
            fine, expected = type(value) is int and value == known[name], str(known[name])
        elif isinstance(default, bool):
            fine, expected = isinstance(value, bool), "true or false"
        elif isinstance(default, int | float) or name == "train_batch_size":
            kind = float if isinstance(default, float) or name in ("epoch", "total_flos") else int
            fine, expected = _is_number(value, kind), "a number, 0 or more"
        else:
            fine, expected = value == default, "nothing, as a run writes it"
        if not fine:
            raise InputError(f"{path} has {name} {short(value)}, expected {expected}")


def check_optimizer(checkpoint: Checkpoint, groups: list[dict[str, Any]], schedule: dict[str, Any]) -> None:
    """Raise InputError unless the saved groups and schedule fit the run's own, which have made no step yet."""
    where = f"{checkpoint.path / CHECKPOINT}:"
    try:
        saved = checkpoint.state["groups"]
        if len(saved) != len(groups):
            raise InputError(f"{where} has {len(saved)} groups of parameters, expected {len(groups)}")
        for number, (found, own) in enumerate(zip(saved, groups, strict=True)):
            rate = {RATE: _is_number(found.get(RATE), float)} if isinstance(found, dict) else {}
            _check_values(f"{where} group {number}", found, own, rate)
        found = checkpoint.state["schedule"]
        rates = found.get("_last_lr")
        free = {
            "last_epoch": type(found.get("last_epoch")) is int and found["last_epoch"] == checkpoint.step,
            "_step_count": type(found.get("_step_count")) is int and found["_step_count"] == checkpoint.step + 1,
            "_last_lr": isinstance(rates, list)
            and len(rates) == len(groups)
            and all(_is_number(rate, float) for rate in rates),
        }
        _check_values(f"{where} schedule", found, schedule, free)
    except InputError as error:
        raise InputError(f"{error}: {instead(checkpoint.path)}") from error


def _check_values(where: str, found: Any, own: Mapping[str, Any], free: Mapping[str, bool]) -> None:
    """Hold a saved object against the run's own; `free` says of each value that may differ whether it is in order."""
    _expect_keys(where, found, own)
    for name, expected in own.items():
        wanted = list(expected) if isinstance(expected, tuple) else expected
        if not free.get(name, _same(found[name], wanted)):
            shown = "" if name in free else f", expected {short(wanted)}"
            raise InputError(f"{where} has {name} {short(found[name])}{shown}, not what the run has at that step")


def _expect_keys(where: str, found: Any, own: Mapping[str, Any]) -> None:
    if not isinstance(found, dict) or found.keys() != own.keys():
        here = sorted(found) if isinstance(found, dict) else found
        raise InputError(f"{where} holds {short(here)}, expected an object with {', '.join(sorted(own))}")


def _same(found: Any, own: Any) -> bool:
    """Whether two JSON values are equal, `true` and 1 told apart; a whole number may stand for a float."""
    return bool(found == own) and isinstance(found, bool) == isinstance(own, bool)


def _is_number(value: Any, kind: type) -> bool:
    kinds = (int, float) if kind is float else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
