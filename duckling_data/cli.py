"""The command `duckling-data`: options in, one call each, errors in one line. No logic.

Only click and the standard library are imported here, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from duckling_data.base.command_line import run_command
from duckling_data.options import COMMON, COUNT, DEBUG, MAPPING, PACK, QUIET, VOCAB, WORKSPACE, option, options

PROGRAM = "duckling-data"


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

    keep_freed_memory()
    from duckling_data.base.executor import default_workers
    from duckling_data.base.progress import Reporter
    from duckling_data.pipeline import Pipeline, Request

    given = {name: value for name, value in given.items() if value is not None}
    asked = {name: given.pop(name) for name in Request.__dataclass_fields__ if name in given}
    request = Request(workspace, workers or default_workers(), source, settings=given, **asked)
    Pipeline(request, Reporter(quiet)).make(*targets)


@cli.command()
@options(COMMON)
def download(**given: Any) -> None:
    """Fetch the source's files, or record yours.

    The hub's files come into corpus/; of local files it is recorded where they are, with their hashes.
    """
    _make(**given)


@cli.command()
@options(COUNT, COMMON)
def count(**given: Any) -> None:
    """Count tokens: token_counts.parquet.

    The GPT-2 tokens of a sample of the stories, with the order in which they first appear.
    """
    _make("count", **given)


@cli.command("build-vocab")
@options(VOCAB, COUNT, COMMON)
def build_vocab(**given: Any) -> None:
    """Choose the live tokens: token_mapping.json."""
    _make("build-vocab", **given)


@cli.command()
@options(PACK, MAPPING, VOCAB, COUNT, COMMON)
def pack(**given: Any) -> None:
    """Cut stories into rows: tokenized_dataset/.

    Every story is encoded, mapped to compact ids, and cut into rows of --ctx tokens.
    """
    _make("pack", **given)


@cli.command()
@options(PACK, MAPPING, VOCAB, COUNT, COMMON)
def run(**given: Any) -> None:
    """Make everything, and the report."""
    from duckling_data.stages import NAMES

    _make(*NAMES, **given)


@cli.command()
@options(COMMON)
def report(**given: Any) -> None:
    """Plot what there is: report/index.html.

    Coverage with the live cut, frequencies by rank, story lengths, and the tokens without a live id.
    """
    _make("report", **given)


@cli.command()
@options(WORKSPACE)
@click.option("--deep", is_flag=True, help="Make every row again with --encoder, not a sample.  [default: off]")
@click.option(
    "--encoder",
    type=click.Choice(["gigatoken", "tokenizers"]),
    default="tokenizers",
    show_default=True,
    help="What encodes the sample: not what made the rows.",
)
@click.option(
    "--golden",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also compare the digests with those in this file.  [default: no comparison]",
)
@click.option(
    "--write-golden",
    type=click.Path(path_type=Path, dir_okay=False),
    help="If all holds, write the digests to this file, for a later --golden.  [default: written nowhere]",
)
@click.option(
    "--reference",
    type=click.Choice(["duckling-ii"]),
    help="Also compare the figures with this original's, which has the real TinyStories.  [default: no comparison]",
)
@option("--workers", type=click.IntRange(1, 1024), default_is="one a core", help="Threads; changes no result.")
@options(QUIET, DEBUG)
def verify(workspace: Path, workers: int | None, quiet: bool, **given: Any) -> None:
    """Check that everything is whole and fits.

    Every file is hashed again, the source's too; counts, mapping and rows are derived again from the stories. Exit
    status 1 if something differs.
    """
    from duckling_data.base.executor import default_workers
    from duckling_data.base.progress import Reporter
    from duckling_data.verify import VerifyRequest, verify_workspace

    for line in verify_workspace(VerifyRequest(workspace, workers or default_workers(), **given), Reporter(quiet)):
        if not quiet:
            click.echo(line)


@cli.command()
@options(WORKSPACE)
@click.option("--row", type=int, default=0, show_default=True, help="The first row to decode.")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="How many rows.")
@click.option("--validation", is_flag=True, help="Read tokenized_validation/ instead.  [default: off]")
@click.option("--text", help="Show what becomes of each token of this text, instead of rows.  [default: rows]")
@options(DEBUG)
def inspect(workspace: Path, row: int, rows: int, validation: bool, text: str | None) -> None:
    """Decode rows, or show how tokens are mapped.

    With --text, each GPT-2 token of the text: its id, how often it was counted, its rank, what it becomes.
    """
    from duckling_data.inspect import decoded_rows, mapped_tokens

    lines = mapped_tokens(workspace, text) if text is not None else decoded_rows(workspace, row, rows, validation)
    for line in lines:
        click.echo(line)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    run_command(cli, PROGRAM, arguments, resume="the same command continues after the last finished stage.")
