"""The flags of `duckling-data`, in groups that its commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


class CountOrAll(click.ParamType[int | str]):
    """A number, or `all`."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `all` or an int."""
        if value == "all" or isinstance(value, int):
            return value
        try:
            return int(str(value).replace("_", ""))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'all'.", param, ctx)


def option(*names: str, default_is: str | None = None, help: str, **kwargs: Any) -> Command:
    """Return a click option that stays None when it is not given, its default said in the help."""
    text = f"{help}  [default: {default_is}]" if default_is else help
    return click.option(*names, help=text, default=kwargs.pop("default", None), **kwargs)


WORKSPACE = click.option(
    "-w",
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts"),
    envvar="DUCKLING_WORKSPACE",
    show_default=True,
    show_envvar=True,
    help="The folder that everything is made in.",
)

QUIET = click.option("-q", "--quiet", is_flag=True, help="Print errors only.  [default: off]")

DEBUG = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.  [default: off]"
)

COMMON = (
    WORKSPACE,
    option(
        "--source",
        multiple=True,
        default=(),
        metavar="SOURCE",
        default_is="the workspace's own, else tinystories",
        help="tinystories (the hub), demo[:STORIES] (built in, no network), or a path: .parquet, .jsonl, .txt, each "
        "also .gz/.zst, or a folder of them. Paths may be repeated.",
    ),
    option("--text-field", default_is="text", metavar="NAME", help="The column or field that holds a story."),
    option("--workers", type=click.IntRange(1, 1024), default_is="one a core", help="Threads; changes no byte."),
    click.option(
        "--encoder",
        type=click.Choice(["gigatoken", "tokenizers"]),
        default="gigatoken",
        show_default=True,
        help="What encodes; changes no byte.",
    ),
    click.option("--offline", is_flag=True, help="Use what is on this machine, download nothing.  [default: off]"),
    click.option("-n", "--dry-run", is_flag=True, help="Print the settings and what would be made.  [default: off]"),
    QUIET,
    DEBUG,
)

COUNT = (
    option(
        "--sample",
        type=CountOrAll(),
        default_is="100000",
        help="Stories whose tokens are counted: the first of a seeded shuffle, or all of them in order.",
    ),
    option("--seed", type=int, default_is="42", help="Seed of that shuffle."),
)

VOCAB = (
    option("--live", type=int, default_is="6144", help="Live ids: the most frequent tokens."),
    option("--dead", type=int, default_is="2048", help="Dead ids after them, which never occur."),
    option(
        "--unk",
        type=click.Choice(["most-frequent", "reserved", "decompose"]),
        default_is="most-frequent",
        help="What becomes of other tokens: compact id 0; the last live id, kept for them; or their live pieces.",
    ),
    option("--eos/--no-eos", is_flag=True, default_is="no-eos", help="Give <|endoftext|> a live id in any case."),
)

PACK = (
    option("--ctx", type=int, default_is="512", help="Tokens in a row."),
    option("--group", type=CountOrAll(), default_is="10000", help="Stories joined before they are cut into rows."),
    option("--separator", type=click.Choice(["none", "eos"]), default_is="none", help="What follows each story."),
)

MAPPING = option(
    "--mapping",
    type=click.Path(path_type=Path, dir_okay=False),
    default_is="the one that build-vocab makes",
    help="A token_mapping.json of your own to pack with.",
)


def options(*groups: Any) -> Callable[[Command], Command]:
    """Return a decorator that adds options, in the order given."""

    def add(command: Command) -> Command:
        flat = [o for group in groups for o in (group if isinstance(group, tuple) else (group,))]
        for one in reversed(flat):
            command = one(command)
        return command

    return add
