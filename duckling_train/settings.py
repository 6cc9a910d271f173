"""Where a run's settings come from: flags over `--config FILE` over a preset over the workspace's own sizes.

What none of them says is Duckling II's.
"""

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
from duckling_train.config import TrainConfig, word

PRESETS = {"duckling-ii": {}, "duckling-ii-4l": {"n_layer": 4}, "duckling-ii-8l": {"n_layer": 8}}
"""The original's models: 1,510,912, 1,907,456 and 2,700,544 parameters."""
INPUTS = "inputs"
"""The key under which a run's `config.json` names its data; no setting."""
SETTINGS_LIMIT = 1 << 20
"""The largest file of settings that is read, in bytes."""
KINDS = typing.get_type_hints(TrainConfig)
FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
FLAGS = {word(name): name for name in FIELDS if word(name) != name}
"""The settings whose flag has another name, by that name without the dashes in front."""


def make_config(
    given: Mapping[str, Any] | None = None, *, preset: str = "duckling-ii", file: Path | None = None,
    sizes: Mapping[str, Any] | None = None,
) -> TrainConfig:  # fmt: skip
    """Return the config of `given` settings over the file's over the preset's over the workspace's `sizes`.

    Raises InputError for any unfit one.
    """
    if preset not in PRESETS:
        raise InputError(f"--preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
    from_file = read_settings(file) if file is not None else {}
    from_file.pop("arithmetic", None)  # of the machine that the file comes from
    if from_file.get("compile") == "yes":  # as is its compiler
        del from_file["compile"]
    return TrainConfig(**{**(sizes or {}), **PRESETS[preset], **from_file, **(given or {})})


def read_settings(file: Path) -> dict[str, Any]:
    """Return the settings in a JSON file: an object with any of `TrainConfig`'s fields, as a run's `config.json` is.

    A flag's name does as well, without the dashes in front: `ctx` is `n_positions`. Raises InputError for a file that
    cannot be read, an unknown key, a setting that is there under both names, and a value of another type.
    """
    content = read_json(file, SETTINGS_LIMIT)
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a JSON {type(content).__name__}; expected an object of settings")
    content.pop(INPUTS, None)
    for key in [key for key in content if key in FLAGS]:
        if FLAGS[key] in content:
            raise InputError(f"{file} has both {key} and {FLAGS[key]}, which are one setting: remove one")
        content[FLAGS[key]] = content.pop(key)
    if isinstance(content.get("untied"), bool) and "tied" not in content:
        content["tied"] = not content.pop("untied")
    inner = content.pop("n_inner", None)
    for name, value in content.items():
        if name not in FIELDS:
            known = ", ".join(word(field) for field in FIELDS)
            raise InputError(f"{file} has an unknown setting {short(name)}; known are {known}")
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
