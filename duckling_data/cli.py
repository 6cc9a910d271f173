"""The command `duckling-data`: its options, and one call for each command; errors in one line.

Only click and the standard library are imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from duckling_data.base.command_line import Command, options, run_command

PROGRAM = "duckling-data"


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


def flag(*names: str, help: str, **kwargs: Any) -> Command:
    """Return a click option that is off unless it is given."""
    return option(*names, is_flag=True, default=False, default_is="off", help=help, **kwargs)


FILE = click.Path(path_type=Path, dir_okay=False)
ENCODER = click.Choice(["gigatoken", "tokenizers"])

WORKSPACE = click.option(
    "-w", "--workspace", type=click.Path(path_type=Path, file_okay=False), default=Path("artifacts"), show_default=True,
    envvar="DUCKLING_WORKSPACE", show_envvar=True, help="The folder that everything is made in.",
)  # fmt: skip

QUIET = flag("-q", "--quiet", help="Print errors only.")
DEBUG = flag("--debug", expose_value=False, help="Show the traceback of an error.")
WORKERS = option("--workers", type=click.IntRange(1, 1024), default_is="one a core", help="Threads; changes no result.")

COMMON = (
    WORKSPACE,
    option("--source", multiple=True, default=(), metavar="SOURCE", default_is="the workspace's own, else tinystories",
           help="tinystories (the hub), demo[:STORIES] (built in, no network), or a path: .parquet, .jsonl, .ndjson, "
           ".json (a list), .csv, .tsv, .txt, each also .gz/.zst/.xz; .arrow; or a folder of them. Paths may repeat."),
    option("--validation", multiple=True, default=(), metavar="PATH", default_is="the files so named",
           help="A file or folder of validation stories. May be repeated."),
    option("--validation-share", type=float, metavar="SHARE", default_is="none",
           help="The share of the stories, such as 0.01, that is validation: a hash of each story decides."),
    option("--text-field", default_is="text", metavar="NAME", help="The column or field that holds a story."),
    option("--newline", type=click.Choice(["lf", "keep"]), default_is="lf", help="Of .txt: CRLF is read as a line end "
           "and a byte order mark dropped, or both are kept."),
    option("--on-bad-line", type=click.Choice(["fail", "skip"]), default_is="fail", help="Of JSON, CSV and TSV: a line "
           "that cannot be read is refused, or left out, counted and listed."),
    WORKERS,
    option("--encoder", type=ENCODER, default="gigatoken", help="What encodes; changes no byte."),
    flag("--offline", help="Use what is on this machine, download nothing."),
    flag("-n", "--dry-run", help="Print the settings and what would be made."),
    QUIET, DEBUG,
)  # fmt: skip

COUNT = (
    option("--sample", type=CountOrAll(), default_is="100000",
           help="Stories whose tokens are counted: the first of a seeded shuffle, or all of them in order."),
    option("--seed", type=int, default_is="42", help="Seed of that shuffle."),
)  # fmt: skip

VOCAB = (
    option("--live", type=int, default_is="6144", help="Live ids: the most frequent tokens."),
    option("--dead", type=int, default_is="2048", help="Dead ids after them, which never occur."),
    option("--unk", type=click.Choice(["most-frequent", "reserved", "decompose"]), default_is="most-frequent",
           help="What becomes of other tokens: compact id 0; the last live id, kept for them; or their live pieces."),
    option("--eos/--no-eos", is_flag=True, default_is="no-eos", help="Give <|endoftext|> a live id in any case."),
)  # fmt: skip

PACK = (
    option("--ctx", type=int, default_is="512", help="Tokens in a row."),
    option("--group", type=CountOrAll(), default_is="10000", help="Stories joined before they are cut into rows."),
    option("--separator", type=click.Choice(["none", "eos"]), default_is="none", help="What follows each story."),
    option("--positions/--no-positions", is_flag=True, default_is="no-positions",
           help="Store each token's index in its own story, too."),
    option("--mapping", type=FILE, default_is="build-vocab's", help="A token_mapping.json of your own to pack with."),
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="duckling", prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Turn stories into two files: token_mapping.json and tokenized_dataset/.

    Each command first brings what it needs up to date, and says what it made. Start with `duckling-data run`, or,
    without a network, `duckling-data run --source demo`.
    """


def _make(
    *targets: str, workspace: Path, source: tuple[str, ...], workers: int | None, quiet: bool, **given: Any
) -> None:
    """Bring the stages up to date; what is given and no field of the request is a setting of a stage."""
    from duckling_data.base.memory import keep_freed_memory

    keep_freed_memory()  # before numpy and pyarrow allocate any
    from duckling_data.base.executor import default_workers
    from duckling_data.base.progress import Reporter
    from duckling_data.pipeline import Pipeline, Request

    given = {name: value for name, value in given.items() if value is not None}
    asked = {name: given.pop(name) for name in Request.__dataclass_fields__ if name in given}
    request = Request(workspace, workers or default_workers(), source, settings=given, **asked)
    Pipeline(request, Reporter(quiet)).make(*targets)


@cli.command()
@options(*COMMON)
def download(**given: Any) -> None:
    """Fetch the source's files, or record yours.

    The hub's files come into corpus/; of local files it is recorded where they are, with their hashes.
    """
    _make(**given)


@cli.command()
@options(*COUNT, *COMMON)
def count(**given: Any) -> None:
    """Count tokens: token_counts.parquet.

    The GPT-2 tokens of a sample of the stories, with the order in which they first appear.
    """
    _make("count", **given)


@cli.command("build-vocab")
@options(*VOCAB, *COUNT, *COMMON)
def build_vocab(**given: Any) -> None:
    """Choose the live tokens: token_mapping.json."""
    _make("build-vocab", **given)


@cli.command()
@options(*PACK, *VOCAB, *COUNT, *COMMON)
def pack(**given: Any) -> None:
    """Cut stories into rows: tokenized_dataset/.

    Every story is encoded, mapped to compact ids, and cut into rows of --ctx tokens.
    """
    _make("pack", **given)


@cli.command()
@options(*PACK, *VOCAB, *COUNT, *COMMON)
def run(**given: Any) -> None:
    """Make everything, and the report."""
    from duckling_data.stages import NAMES

    _make(*NAMES, **given)


@cli.command()
@options(*COMMON)
def report(**given: Any) -> None:
    """Plot what there is: report/index.html.

    Coverage with the live cut, frequencies by rank, story lengths, and the tokens without a live id.
    """
    _make("report", **given)


@cli.command()
@options(WORKSPACE)
@option("--source", multiple=True, default=(), metavar="SOURCE", default_is="the workspace's own",
        help="Where the same stories are now, if they were moved. May be repeated.")  # fmt: skip
@option("--validation", multiple=True, default=(), metavar="PATH", default_is="the workspace's own",
        help="Where the validation stories are now, if they were named and moved.")  # fmt: skip
@flag("--deep", help="Make every row again with --encoder, not a sample.")
@option("--encoder", type=ENCODER, default="tokenizers", help="What encodes the sample: not what made the rows.")
@option("--golden", type=FILE, default_is="no comparison", help="Also compare the digests with those in this file.")
@option("--write-golden", type=FILE, default_is="written nowhere", help="If all holds, write the digests to this file.")
@option("--reference", type=click.Choice(["duckling-ii"]), default_is="no comparison",
        help="Also compare the figures with this original's, which has the real TinyStories.")  # fmt: skip
@options(WORKERS, QUIET, DEBUG)
def verify(workspace: Path, source: tuple[str, ...], workers: int | None, quiet: bool, **given: Any) -> None:
    """Check that everything is whole and fits.

    Every file is hashed again, the source's too; counts, mapping and rows are derived again from the stories. Exit
    status 1 if something differs.
    """
    from duckling_data.base.executor import default_workers
    from duckling_data.base.progress import Reporter
    from duckling_data.verify import VerifyRequest, verify_workspace

    request = VerifyRequest(workspace, workers or default_workers(), sources=source, **given)
    for line in verify_workspace(request, Reporter(quiet)):
        if not quiet:
            click.echo(line)


@cli.command()
@options(WORKSPACE)
@option("--row", type=int, default=0, help="The first row to decode.")
@option("--rows", type=click.IntRange(1), default=1, help="How many rows.")
@flag("--validation", help="Read tokenized_validation/ instead.")
@option("--text", default_is="rows", help="Show what becomes of each token of this text, instead of rows.")
@options(DEBUG)
def inspect(workspace: Path, row: int, rows: int, validation: bool, text: str | None) -> None:
    """Decode rows, or show how tokens are mapped.

    With --text, each GPT-2 token of the text: its id, how often it was counted, its rank, what it becomes.
    """
    from duckling_data.inspect import decoded_rows, mapped_tokens

    lines = mapped_tokens(workspace, text) if text is not None else decoded_rows(workspace, row, rows, validation)
    for line in lines:
        click.echo(line)


@cli.command()
@options(WORKSPACE)
@flag("--json", "as_json", help="Print JSON instead of lines.")
@options(DEBUG)
def status(workspace: Path, as_json: bool) -> None:
    """Show what there is: the source, and each stage.

    Quick: files are looked for, not read. `verify` reads and checks them.
    """
    from duckling_data.status import status_lines, workspace_status

    found = workspace_status(workspace)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(status_lines(found)))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    run_command(cli, PROGRAM, arguments, resume="the same command continues after the last finished stage.")
