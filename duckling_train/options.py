"""The options that several commands share, as decorators: a run's settings, a sweep's lists of them, the workspace."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from duckling_data.base.command_line import DEBUG, QUIET, Command, choice, options
from duckling_data.base.command_line import flag as click_flag
from duckling_train.config import CHOICES, OF_THE_RECORD, TrainConfig, flag
from duckling_train.settings import FIELDS, PRESETS, read_settings
from duckling_train.sweep.grid import text

PROGRAM = "duckling-train"
NUMBERS = {"integer": "N", "float": "X"}
"""How `--help` of a sweep shows a number."""
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
            for found in self._range(part, param, ctx) or [self._read(part)]:
                if found in values:
                    self.fail(f"{value!r} has {found} twice; a value counts once.", param, ctx)
                values.append(found)
        return tuple(values)

    def _range(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return the seeds of a half-open range, as 42:106; empty for what is none."""
        ends = part.split(":")
        if self.option.name != "seed" or len(ends) != 2:
            return []
        first, end = (self._read(each) for each in ends)
        if not first < end:
            self.fail(f"{part!r} is no range; expected FIRST:END with FIRST below END, which is left out.", param, ctx)
        return list(range(first, end))

    def _read(self, part: str) -> Any:
        if self.option.secondary_opts:  # a pair of flags; here, two values of one
            if part not in TIED:
                self.fail(f"{part!r} is neither tied nor untied.", self.option)
            return part == TIED[0]
        given = part.split(":") if self.option.nargs == 2 else part
        if len(given) != 2 and self.option.nargs == 2:
            self.fail(f"{part!r} is not two numbers with a colon between.", self.option)
        return self.option.process_value(click.Context(click.Command("sweep")), given)


def number_or_all(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Read N or `all`; `all` is None."""
    if value is None or value == "all":
        return None
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number nor all") from error


workspace = click.option(
    "-w", "--workspace", type=click.Path(path_type=Path), default=Path("artifacts"), metavar="DIR",
    envvar="DUCKLING_WORKSPACE", show_envvar=True, help="Where duckling-data put its two files.",
)  # fmt: skip
verbosity = options(QUIET, DEBUG)
config = options(
    click.option("--preset", default="duckling-ii", help="The model.", **choice(list(PRESETS))),
    click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
                 help="Settings as JSON, such as an earlier run's config.json. Flags override it."),
)  # fmt: skip

YES = click_flag("-y", "--yes", help="Train without --steps: as many as is their default.")

SPECIAL: dict[str, dict[str, Any]] = {
    "betas": {"type": (float, float), "metavar": "B1 B2"},
    "eval_rows": {"type": str, "metavar": "N|all", "callback": number_or_all, "default": str(TrainConfig.eval_rows)},
    "n_positions": {"type": int, "default": None},
    "vocab_size": {"type": int, "default": None},
    "tied": {"is_flag": True},
    "keep_checkpoints": {"is_flag": True},
    "mask_across_stories": {"is_flag": True},
    **{name: choice(choices) for name, choices in CHOICES.items()},
}
"""Settings whose flag is not a number with the field's default."""
FLAGGED = [name for name in FIELDS if "help" in FIELDS[name].metadata]
"""The settings that have a flag, in the order of the fields."""

HEADINGS = {
    "Model": ("preset", "n_layer", "n_embd", "n_head", "n_positions", "vocab_size", "tied", "activation", "dropout",
              "init_std", "mask_across_stories"),
    "Optimizer": ("steps", "batch_size", "optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay",
                  "max_grad_norm", "betas", "adam_epsilon", "precision"),
    "Data and evaluation": ("seed", "data_seed", "eval_steps", "eval_rows"),
    "Checkpoints and logs": ("checkpoint_steps", "keep_checkpoints", "logging_steps", "report_to"),
    "Record": ("record", "record_every", "record_tensors", "record_dtype", "on_record_error"),
    "Where it runs": ("engine", "compile", "device", "threads", "jobs", "executor", "ray_address", "cpus_per_run",
                      "gpus_per_run"),
    "Run": ("seeds", "workspace", "out", "name", "config_file", "resume", "overwrite", "yes", "dry_run", "quiet",
            "debug", "version"),
}  # fmt: skip
"""The options of a training and of a sweep, as `--help` shows them."""


def _setting(name: str) -> tuple[list[str], dict[str, Any]]:
    """Return the names and attributes of a setting's flag."""
    default = FIELDS[name].default
    attributes = {"type": int} if default is None else {"type": type(default), "default": default}
    names = [name, "--tied/--untied" if name == "tied" else flag(name)]
    return names, attributes | {"help": FIELDS[name].metadata["help"]} | SPECIAL.get(name, {})


def _list(name: str) -> Command:
    """Return the option of a sweep that takes several values where a run's takes one."""
    names, attributes = _setting(name)
    option = click.Option(names, **attributes)
    if name in OF_THE_RECORD:  # some have commas of their own
        return click.option(*names, **attributes)
    if option.is_flag and not option.secondary_opts:  # nothing to choose from
        return click.option(*names, is_flag=True, help=option.help)
    shown = "|".join(TIED) if option.secondary_opts else (option.metavar or NUMBERS[option.type.name]).replace(" ", ":")
    default = attributes.get("default")
    attributes = {} if default is None else {"default": text(name, FIELDS[name].default)}  # else in its help
    flags = [*option.opts, *(["--seeds"] if name == "seed" else [])]
    return click.option(*flags, name, type=CommaList(option), metavar=f"{shown}[,...]", help=option.help, **attributes)


seeds = click.option(
    "--seeds", type=CommaList(click.Option(["--seed", "seed"], type=int)), metavar="N:M|N,N",
    help="Train a run of each seed, all at once: from N up to and without M, or each that is named.",
)  # fmt: skip
settings = options(*(click.option(*names, **attributes) for names, attributes in map(_setting, FLAGGED)))
"""A flag for every setting of a run."""
setting_lists = options(*map(_list, FLAGGED))
"""A flag for every setting of a run, each with a list of values."""


def given(context: click.Context, name: str) -> bool:
    """Return whether the user gave the option or argument `name` in the command line."""
    return context.get_parameter_source(name) == ParameterSource.COMMANDLINE


def given_settings(context: click.Context) -> dict[str, Any]:
    """Return the settings that were given as flags: what a default fills is left to the preset and the file."""
    return {name: value for name, value in context.params.items() if name in FIELDS and given(context, name)}


def given_lists(context: click.Context) -> dict[str, tuple[Any, ...]]:
    """Return the values of the settings that were given as flags to a sweep."""
    lists = given_settings(context)
    return {name: value if isinstance(value, tuple) else (value,) for name, value in lists.items()}


def says_steps(context: click.Context, file: Path | None) -> bool:
    """Return whether the user says how many steps: by the flag, or in the file of settings."""
    return given(context, "steps") or (file is not None and "steps" in read_settings(file))


def refuse(context: click.Context, names: Collection[str | None], why: str) -> None:
    """Raise click.UsageError for the first of these options that was given: it would be ignored."""
    for parameter in context.command.params:
        if parameter.name in names and given(context, parameter.name):
            raise click.UsageError(f"{max(parameter.opts, key=len)} {why}")
