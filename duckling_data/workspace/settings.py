"""Resolves a stage's settings: what is given, else what the workspace remembers, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.records import short

S = TypeVar("S")

ALL = "all"
"""How None (`--sample all`, `--group all`) is written in the manifest and on the command line."""
ADDED = {"added": True}
"""Metadata of a setting that earlier versions had not: the manifest has it only where it is not at its default."""
LONGEST = 140
"""Characters of a setting, at most: it is shown in one line."""


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """A stage's settings and where each value came from."""

    value: S
    origin: dict[str, str]
    """`given`, `remembered` or `default`, by field."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as the manifest keeps them: None as `all`, those of ADDED unless at their default."""
        every = {field: getattr(self.value, field.name) for field in fields(self.value)}  # type: ignore[arg-type]
        kept = {at.name: value for at, value in every.items() if "added" not in at.metadata or value != at.default}
        return {name: ALL if value is None else value for name, value in kept.items()}

    def line(self) -> str:
        """Return the settings and their origins in one line for a person."""
        shown = {name: {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
                 for name, value in self.to_json().items()}  # fmt: skip
        return ", ".join(f"{name} {value} ({self.origin[name]})" for name, value in shown.items())


def resolve(kind: type[S], given: Mapping[str, Any], remembered: Mapping[str, Any]) -> Resolved[S]:
    """Return the settings of the dataclass `kind` from values by field name; `all` means None.

    `given` may hold other stages' settings. Raises InputError for a value of another type or (from the class) out of
    range, and for a setting that is remembered and unknown.
    """
    types = get_type_hints(kind)
    for name in remembered.keys() - types.keys():
        raise InputError(
            f"manifest.json: unknown setting {short(name)}; expected {', '.join(types) or 'none'}; "
            "remove manifest.json, the next command makes the stages again."
        )
    values = {name: value for name, value in {**remembered, **given}.items() if name in types}
    origin = {name: "given" if name in given else "remembered" if name in values else "default" for name in types}
    values = {name: _checked(name, value, types[name]) for name, value in values.items()}
    return Resolved(kind(**values), origin)


def _checked(name: str, value: object, kind: Any) -> Any:
    """Return a setting's value, `all` as None. Raises InputError for one of another type."""
    try:
        if isinstance(value, str) and len(value) > LONGEST:
            raise msgspec.ValidationError(f"Expected at most {LONGEST} characters")
        return msgspec.convert(None if value == ALL else value, kind)
    except msgspec.ValidationError as error:
        raise InputError(
            f"the setting {name} is {short(value)}: {error}; if manifest.json holds it, remove that file, the next "
            "command makes the stages again."
        ) from error
