"""The options of `duckling-train sweep`: those of a run, each with a list of values, made from the run's own table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from duckling_train.options import Command, setting_options
from duckling_train.settings import FIELDS
from duckling_train.sweep.grid import text

SEVERAL = "[,...]"
ALIASES = {"seed": "--seeds"}
NUMBERS = {"integer": "N", "float": "X"}


class CommaList(click.ParamType[Any]):
    """Values between commas, each read by `read`; at least one, all different. Converts to a tuple."""

    name = "list"

    def __init__(self, read: Callable[[str], Any]) -> None:
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the tuple of values; fails for an empty one, a bad one, or one that comes twice."""
        if not isinstance(value, str):
            return value
        values = []
        for part in value.split(","):
            if not part.strip():
                self.fail(f"{value!r} has an empty place; expected values between commas.", param, ctx)
            values.append(self.read(part.strip()))
            if values[-1] in values[:-1]:
                self.fail(f"{value!r} has {part.strip()} twice; a value counts once.", param, ctx)
        return tuple(values)


def sweep_options(command: Command) -> Command:
    """Add a flag for every setting of a run, in the run's order, each with a list of values."""
    table = click.command()(setting_options(lambda **_: None))
    for option in reversed(table.params):
        if isinstance(option, click.Option) and option.name in FIELDS:
            command = _as_list(option)(command)
    return command


def given_lists(context: click.Context) -> dict[str, tuple[Any, ...]]:
    """Return the values of the settings that were given as flags."""
    return {
        name: value if isinstance(value, tuple) else (value,)
        for name, value in context.params.items()
        if name in FIELDS and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
    }


def _as_list(option: click.Option) -> Callable[[Command], Command]:
    """Return the option that takes several values where `option`, one of a run's, takes one."""
    name, flags, help_text = str(option.name), list(option.opts), option.help or ""
    if option.is_flag and not option.secondary_opts:  # nothing to choose from
        return click.option(*flags, name, is_flag=True, help=help_text)
    if name in ALIASES:
        flags.append(ALIASES[name])
    default = FIELDS[name].default
    shown, read = _reading(option)
    attributes: dict[str, Any] = (
        {} if default is None else {"default": text(name, default)}
    )  # its help says what no value means
    return click.option(*flags, name, type=CommaList(read), metavar=shown + SEVERAL, help=help_text, **attributes)


def _reading(option: click.Option) -> tuple[str, Callable[[str], Any]]:
    """Return how `option` shows one value in the help, and what reads one; that raises click.BadParameter."""
    if option.secondary_opts:  # a pair of flags; here, two values of one
        return "tied|untied", _tied
    if option.nargs == 2:
        return "B1:B2", _pair
    if (callback := option.callback) is not None:
        return option.metavar or "", lambda value: callback(click.Context(click.Command("sweep")), option, value)
    kind = option.type
    shown = "|".join(kind.choices) if isinstance(kind, click.Choice) else NUMBERS[kind.name]
    return shown, lambda value: kind.convert(value, option, None)


def _tied(value: str) -> bool:
    if value not in ("tied", "untied"):
        raise click.BadParameter(f"{value!r} is neither tied nor untied.")
    return value == "tied"


def _pair(value: str) -> tuple[float, float]:
    try:
        first, second = map(float, value.split(":"))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not two numbers with a colon between.") from error
    return first, second
