"""Resolves a stage's settings: what is given, else what the workspace remembers, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Generic, TypeVar

from duckling_data.base.errors import InputError

S = TypeVar("S")

ALL = "all"
"""How None (`--sample all`, `--group all`) is written in the manifest and on the command line."""

KINDS: dict[str, type] = {"int": int, "str": str, "bool": bool}
"""The settings' annotations."""

LONGEST = 60
"""Characters of a setting, at most: it is shown in one line."""


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """A stage's settings and where each value came from."""

    value: S
    origin: dict[str, str]
    """`given`, `remembered` or `default`, by field."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as the manifest keeps them."""
        return settings_json(self.value)

    def line(self) -> str:
        """Return the settings and their origins in one line for a person."""
        return ", ".join(f"{name} {value} ({self.origin[name]})" for name, value in self.to_json().items())


def settings_json(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as a dict for JSON, None written as `all`."""
    return {name: ALL if value is None else value for name, value in asdict(settings).items()}


def resolve(kind: type[S], given: Mapping[str, Any], remembered: Mapping[str, Any]) -> Resolved[S]:
    """Return the settings of class `kind`. Raises InputError (from the class) for a value out of range.

    Both mappings go by field name; a field that is absent is not given, or not remembered; `all` means None.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # S is always one of the settings dataclasses
        for source, name in ((given, "given"), (remembered, "remembered")):
            if field.name in source:
                value = source[field.name]
                _check_kind(field.name, value, str(field.type))
                values[field.name] = None if value == ALL else value
                origin[field.name] = name
                break
        else:
            origin[field.name] = "default"
    return Resolved(kind(**values), origin)


def _check_kind(name: str, value: object, annotation: str) -> None:
    """Raise InputError unless a value, from a manifest perhaps, is what the field's annotation says."""
    expected = KINDS[annotation.removesuffix(" | None")]
    fits = type(value) is expected and not (isinstance(value, str) and len(value) > LONGEST)
    if not fits and not (annotation.endswith(" | None") and value in (ALL, None)):
        raise InputError(
            f"the setting {name} is {repr(value)[:60]}, expected {expected.__name__}. "
            "If the manifest says so, remove it; the stages will run again."
        )
