"""Where a run's settings come from: flags over `--config FILE` over a preset over Duckling II's defaults."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_data.base.strict_json import read_json
from duckling_train.config import FIXED, TrainConfig

PRESETS = {"duckling-ii": {}, "duckling-ii-4l": {"n_layer": 4}, "duckling-ii-8l": {"n_layer": 8}}
"""The original's models: 1,510,912, 1,907,456 and 2,700,544 parameters."""
INPUTS = "inputs"
"""The key under which a run's `config.json` names its data; no setting."""
SETTINGS_LIMIT = 1 << 20
"""The largest file of settings that is read, in bytes."""
KINDS = typing.get_type_hints(TrainConfig)
FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


def make_config(
    given: Mapping[str, Any] | None = None, *, preset: str = "duckling-ii", file: Path | None = None
) -> TrainConfig:
    """Return the config of `given` settings over the file's over the preset's. Raises InputError for any unfit one."""
    if preset not in PRESETS:
        raise InputError(f"--preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
    settings = {**PRESETS[preset], **(read_settings(file) if file is not None else {}), **(given or {})}
    return TrainConfig(**settings)


def read_settings(file: Path) -> dict[str, Any]:
    """Return the settings in a JSON file: an object with any of `TrainConfig`'s fields, as a run's `config.json` is.

    Raises InputError for a file that cannot be read, an unknown key, a value of another type, and another optimizer or
    other part of the recipe that no setting changes.
    """
    content = read_json(file, SETTINGS_LIMIT)
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a JSON {type(content).__name__}; expected an object of settings")
    content.pop(INPUTS, None)
    for name, value in FIXED.items():
        if content.pop(name, value) != value:
            raise InputError(f"{file} has another {name} than {value!r}, which no setting changes: remove the key")
    inner = content.pop("n_inner", None)
    for name, value in content.items():
        if name not in FIELDS:
            raise InputError(f"{file} has an unknown setting {short(name)}; known are {', '.join(FIELDS)}")
        check_type(file, name, value)
    if inner is not None and inner != TrainConfig(**content).n_inner:
        raise InputError(f"{file} has n_inner {short(inner)}, which is always four times n_embd: remove the key")
    return content


def check_type(file: Path, name: str, value: Any) -> None:
    """Raise InputError, which names `file`, unless the JSON `value` fits the field `name` of a `TrainConfig`."""
    try:
        msgspec.convert(value, KINDS[name], strict=True)
    except msgspec.ValidationError as error:
        raise InputError(f"{file}: {name} is {short(value)}; {str(error).lower()}") from error
