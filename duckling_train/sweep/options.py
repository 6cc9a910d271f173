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
TIED = ("tied", "untied")


class CommaList(click.ParamType[Any]):
    """Values between commas, each as `option`, a run's, takes it; at least one, all different. Converts to a tuple."""

    name = "list"

    def __init__(self, option: click.Option) -> None:
        self.option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the tuple of values; fails for an empty one, a bad one, or one that is there more than once."""
        if not isinstance(value, str):
            return value
        values: list[Any] = []
        for part in map(str.strip, value.split(",")):
            if not part:
                self.fail(f"{value!r} has an empty value; expected values between commas.", param, ctx)
            values.append(self._read(part))
            if values[-1] in values[:-1]:
                self.fail(f"{value!r} has {part} twice; a value counts once.", param, ctx)
        return tuple(values)

    def _read(self, part: str) -> Any:
        if self.option.secondary_opts:  # a pair of flags; here, two values of one
            if part not in TIED:
                self.fail(f"{part!r} is neither tied nor untied.", self.option)
            return part == TIED[0]
        given = part.split(":") if self.option.nargs == 2 else part
        if len(given) != 2 and self.option.nargs == 2:
            self.fail(f"{part!r} is not two numbers with a colon between.", self.option)
        return self.option.process_value(click.Context(click.Command("sweep")), given)


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
    attributes: dict[str, Any] = {} if default is None else {"default": text(name, default)}  # else in its help
    return click.option(
        *flags, name, type=CommaList(option), metavar=_shown(option) + SEVERAL, help=help_text, **attributes
    )


def _shown(option: click.Option) -> str:
    """Return how one value of a run's option is shown in the help."""
    if option.secondary_opts:
        return "|".join(TIED)
    if option.metavar:
        return option.metavar.replace(" ", ":")
    return "|".join(option.type.choices) if isinstance(option.type, click.Choice) else NUMBERS[option.type.name]
