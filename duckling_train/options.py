"""The options that several commands share, as decorators: a run's settings, a sweep's lists of them, the workspace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from duckling_train.config import DEVICES, ENGINES, PRECISIONS, REPORTERS, SCHEDULES, TrainConfig
from duckling_train.settings import FIELDS, PRESETS
from duckling_train.sweep.grid import text

Command = Callable[..., Any]
NUMBERS = {"integer": "N", "float": "X"}
"""How `--help` of a sweep shows a number."""
TIED = ("tied", "untied")


class Choice(click.Choice[str]):
    """A choice that `--help` shows without braces, as a|b."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the choices with bars between."""
        return "|".join(self.choices)


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


def number_or_all(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Read N or `all`; `all` is None."""
    if value is None or value == "all":
        return None
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number nor all") from error


def workspace(command: Command) -> Command:
    """Add `--workspace`."""
    return click.option(
        "-w", "--workspace", type=click.Path(path_type=Path), default=Path("artifacts"), metavar="DIR",
        envvar="DUCKLING_WORKSPACE", show_envvar=True, help="Where duckling-data put its two files.",
    )(command)  # fmt: skip


def verbosity(command: Command) -> Command:
    """Add `--quiet`, and `--debug`, which `run_command` reads itself."""
    command = click.option(
        "--debug", is_flag=True, expose_value=False, help="Add the traceback to an error.  [default: off]"
    )(command)
    return click.option("--quiet", is_flag=True, help="Print errors only.  [default: off]")(command)


def _setting(name: str, *flags: str, **attributes: Any) -> Callable[[Command], Command]:
    default = getattr(TrainConfig, name)
    if "callback" not in attributes and default is not None:
        attributes.setdefault("default", default)
    if not {"type", "is_flag", "callback"} & attributes.keys() and default is not None:
        attributes["type"] = type(default)
    return click.option(*flags, name, **attributes)


SETTINGS = (
    _setting("engine", "--engine", type=Choice(ENGINES), help="What trains: reference is the Hugging Face Trainer."),
    _setting("steps", "--steps", help="Optimizer steps."),
    _setting("batch_size", "--batch-size", help="Rows a step, of all processes together."),
    _setting("learning_rate", "--learning-rate", help="Peak learning rate."),
    _setting("schedule", "--schedule", type=Choice(SCHEDULES), help="Learning rate after the warm-up."),
    _setting("warmup_steps", "--warmup-steps", help="Steps over which it first rises from 0."),
    _setting("weight_decay", "--weight-decay", help="AdamW's decoupled weight decay."),
    _setting("max_grad_norm", "--clip", help="Largest global gradient norm; 0 clips nothing."),
    _setting("betas", "--betas", type=(float, float), metavar="B1 B2", help="AdamW's two decays."),
    _setting("precision", "--precision", type=Choice(PRECISIONS),
             help="The seed's autocast; float32; all in bfloat16 (the loss stops falling); bfloat16 weights with "
                  "float32 Adam state, rounded to nearest; the same, rounded stochastically."),
    _setting("seed", "--seed", help="Seed of the weights."),
    _setting("data_seed", "--data-seed", type=int, help="Seed of the order of the rows.  [default: --seed]"),
    _setting("n_layer", "--layers", help="Transformer blocks."),
    _setting("n_embd", "--width", help="Width of an embedding row; the feed-forward layer is 4 times as wide."),
    _setting("n_head", "--heads", help="Attention heads a block."),
    _setting("tied", "--tied/--untied", is_flag=True, help="Whether the softmax uses the embedding's own rows."),
    _setting("n_positions", "--ctx", help="Context length; must be the dataset's."),
    _setting("vocab_size", "--vocab-size", help="Embedding rows, live and dead; must be the mapping's."),
    _setting("logging_steps", "--logging-steps", help="Steps between two logged losses."),
    _setting("eval_steps", "--eval-steps", help="Steps between two evaluations; 0 evaluates at the end alone."),
    _setting("eval_rows", "--eval-rows", metavar="N|all", callback=number_or_all,
             default=str(TrainConfig.eval_rows), help="Validation rows an evaluation takes; 0 never evaluates."),
    _setting("checkpoint_steps", "--checkpoint-steps", help="Steps between two checkpoints; 0 writes none."),
    _setting("keep_checkpoints", "--keep-checkpoints", is_flag=True,
             help="Keep all of them: else the last two, and none after the end.  [default: off]"),
    _setting("report_to", "--report-to", type=Choice(REPORTERS), help="Where else metrics go than the run directory."),
    _setting("device", "--device", type=Choice(DEVICES), help="Where to train."),
    _setting("threads", "--threads", type=int, help="CPU threads; they shape a CPU run's bits.  [default: torch's]"),
)  # fmt: skip


def config(command: Command) -> Command:
    """Add `--preset` and `--config`."""
    command = click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
        help="Settings as JSON, such as an earlier run's config.json. Flags override it.",
    )(command)  # fmt: skip
    return click.option("--preset", type=Choice(tuple(PRESETS)), default="duckling-ii", help="The model.")(command)


def settings(command: Command) -> Command:
    """Add a flag for every setting of a run, in the order of SETTINGS."""
    for option in reversed(SETTINGS):
        command = option(command)
    return command


def setting_lists(command: Command) -> Command:
    """Add a flag for every setting of a run, in the run's order, each with a list of values."""
    for option in reversed(click.command()(settings(lambda **_: None)).params):
        if isinstance(option, click.Option) and option.name in FIELDS:
            command = _as_list(option, option.name)(command)
    return command


def _as_list(option: click.Option, name: str) -> Callable[[Command], Command]:
    """Return the option that takes several values where `option`, one of a run's, takes one."""
    flags = [*option.opts, *(["--seeds"] if name == "seed" else [])]
    if option.is_flag and not option.secondary_opts:  # nothing to choose from
        return click.option(*flags, name, is_flag=True, help=option.help)
    if option.secondary_opts:
        shown = "|".join(TIED)
    elif isinstance(option.type, click.Choice):
        shown = "|".join(option.type.choices)
    else:
        shown = option.metavar.replace(" ", ":") if option.metavar else NUMBERS[option.type.name]
    default = FIELDS[name].default
    attributes = {} if default is None else {"default": text(name, default)}  # else in its help
    return click.option(*flags, name, type=CommaList(option), metavar=f"{shown}[,...]", help=option.help, **attributes)


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
