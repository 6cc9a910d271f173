"""The options of `duckling-data` that several commands share, and the headings that `--help` shows them under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from duckling_data.base.command_line import DEBUG, QUIET, Command, choice, flag


class CountOrAll(click.ParamType[int | str]):
    """A number, or `all`."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return `all` or an int."""
        try:
            return "all" if value == "all" else int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'all'.", param, ctx)


def option(*names: str, help: str, default: Any = None, default_is: str | None = None, **kwargs: Any) -> Command:
    """Return a click option that says its default in the help: what `default_is` says, where it stays None."""
    return click.option(*names, help=f"{help}  [default: {default_is or default}]", default=default, **kwargs)


FILE = click.Path(path_type=Path, dir_okay=False)
ENCODER = choice(["gigatoken", "tokenizers"])

WORKSPACE = click.option(
    "-w", "--workspace", type=click.Path(path_type=Path, file_okay=False), default=Path("artifacts"), show_default=True,
    metavar="DIR", envvar="DUCKLING_WORKSPACE", show_envvar=True, help="The folder that everything is made in.",
)  # fmt: skip

WORKERS = option("--workers", type=click.IntRange(1, 1024), metavar="INTEGER", default_is="one a core",
                 help="Threads; changes no result.")  # fmt: skip

COMMON = (
    WORKSPACE,
    option("--source", multiple=True, default=(), metavar="SOURCE", default_is="the workspace's own, else tinystories",
           help="tinystories (the hub), demo[:STORIES] (built in, no network), or a path or URL (s3://, gs://, hf://, "
           "https://): .parquet, .jsonl, .ndjson, .json (a list), .csv, .tsv, .txt, each also .gz/.zst/.xz; .arrow; or "
           "a folder of them. May be repeated."),
    option("--validation", multiple=True, default=(), metavar="PATH", default_is="the files so named",
           help="A file or folder of validation stories, or its URL. May be repeated."),
    option("--validation-share", type=float, metavar="SHARE", default_is="none",
           help="The share of the stories, such as 0.01, that is validation: a hash of each story decides."),
    option("--text-field", default_is="text", metavar="NAME", help="The column or field that holds a story."),
    option("--newline", **choice(["lf", "keep"]), default_is="lf", help="Of .txt: CRLF is read as a line end "
           "and a byte order mark dropped, or both are kept."),
    option("--on-bad-line", **choice(["fail", "skip"]), default_is="fail", help="Of JSON, CSV and TSV: a line "
           "that cannot be read is refused, or left out, counted and listed."),
    WORKERS,
    option("--encoder", **ENCODER, default_is="gigatoken, where it is exact", help="What encodes; changes no byte."),
    option("--executor", **choice(["local", "ray"]), default="local", help="Who does the work: this process, or the "
           "tasks of a Ray cluster (duckling[ray]), whose machines share the workspace; changes no byte."),
    option("--ray-address", metavar="ADDRESS", default_is="a cluster on this machine, for this command",
           help="The Ray cluster, which this machine is a node of: auto, or HOST:PORT."),
    option("--shards", type=click.IntRange(1, 99_999), metavar="N", default_is="one for each 128 MB of text on Ray",
           help="Parts of the stories, each done by one task; a stopped stage goes on with those not done."),
    option("--keep-tokens/--no-keep-tokens", is_flag=True, default_is="keep-tokens",
           help="Keep the stories' tokens in the workspace for later commands, 2 bytes each; no: remove them."),
    flag("--offline", help="Use what is on this machine, download nothing."),
    flag("-n", "--dry-run", help="Print the settings and what would be made."),
    QUIET, DEBUG,
)  # fmt: skip


class Shard(click.ParamType[tuple[int, int]]):
    """A shard's number, from 0, and how many there are."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return the two numbers."""
        number, _, count = str(value).partition("/")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count) <= 99_999):
            self.fail(f"{value!r} is not a shard's number, counted from 0, and their count, as 0/7 to 6/7.", param, ctx)
        return int(number), int(count)


SHARD = option("--shard", type=Shard(), metavar="I/N", default_is="all", help="Make this one of N shards alone, such "
               'as "$SLURM_ARRAY_TASK_ID/7" in an array job; `merge` joins them.')  # fmt: skip

TOKENIZER = option(
    "--tokenizer",
    default_is="gpt2",
    metavar="FILE|ID@REVISION",
    help="What makes the tokens: gpt2, the "
    "tokenizer.json of another byte-level BPE, or a repository of the hub at a commit (40 hex digits).",
)

COUNT = (
    option("--sample", type=CountOrAll(), metavar="N|all", default_is="100000",
           help="Stories whose tokens are counted: the first of a seeded shuffle, or all of them in order."),
    option("--seed", type=int, default_is="42", help="Seed of that shuffle."),
    TOKENIZER,
)  # fmt: skip

VOCAB = (
    option("--live", type=int, default_is="6144", help="Live ids: the most frequent tokens."),
    option("--dead", type=int, default_is="2048", help="Dead ids after them, which never occur."),
    option("--unk", **choice(["most-frequent", "reserved", "decompose"]), default_is="most-frequent",
           help="What becomes of other tokens: compact id 0; the last live id, kept for them; or their live pieces."),
    option("--eos/--no-eos", is_flag=True, default_is="no-eos",
           help="Give <|endoftext|>, or what ends a text for another --tokenizer, a live id in any case."),
)  # fmt: skip

MAPPING = option("--mapping", type=FILE, default_is="built from the counts",
                 help="A token_mapping.json of your own to pack with.")  # fmt: skip

PACK = (
    option("--ctx", type=int, default_is="512", help="Tokens in a row."),
    option("--group", type=CountOrAll(), metavar="N|all", default_is="10000",
           help="Stories joined before they are cut into rows."),
    option("--separator", **choice(["none", "eos"]), default_is="none", help="What follows each story."),
    option("--positions/--no-positions", is_flag=True, default_is="no-positions",
           help="Store each token's index in its own story, too."),
    MAPPING,
)  # fmt: skip

HEADINGS = {
    "Stories": ("source", "validation", "validation_share", "text_field", "newline", "on_bad_line"),
    "Counts": ("sample", "seed", "tokenizer"),
    "Vocabulary": ("live", "dead", "unk", "eos"),
    "Rows": ("ctx", "group", "separator", "positions", "mapping"),
    "Where it runs": ("workers", "encoder", "executor", "ray_address", "shards", "shard", "keep_tokens", "offline"),
    "Run": ("workspace", "dry_run", "quiet", "debug"),
}
"""The options of the commands that make something, as their `--help` shows them."""
