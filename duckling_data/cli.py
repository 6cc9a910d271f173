"""The command `duckling-data`: its options, and one call for each command; errors in one line.

Only click and the standard library are imported here, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from duckling_data.base.command_line import (
    CONTEXT,
    DEBUG,
    JSON,
    QUIET,
    Grouped,
    choice,
    flag,
    json_text,
    options,
    print_checks,
    run_command,
)
from duckling_data.options import (
    COMMON,
    COUNT,
    ENCODER,
    FILE,
    HEADINGS,
    MAPPING,
    PACK,
    SHARD,
    TOKENIZER,
    VOCAB,
    WORKERS,
    WORKSPACE,
    option,
)

PROGRAM = "duckling-data"


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="duckling", prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Turn stories into two files: token_mapping.json and tokenized_dataset/.

    Each command first brings what it needs up to date, and says what it made. Start with `duckling-data run`, or,
    without a network, `duckling-data run --source demo`.
    """


def _make(
    *targets: str, workspace: Path, source: tuple[str, ...], workers: int | None, quiet: bool,
    shard: tuple[int, int] | None = None, joins: str | None = None, **given: Any,
) -> None:  # fmt: skip
    """Bring the stages up to date; what is given and no field of the request is a setting of a stage."""
    from duckling_data.base.memory import keep_freed_memory

    keep_freed_memory()  # before numpy and pyarrow allocate any
    from duckling_data.base.executor import default_workers
    from duckling_data.base.progress import Reporter
    from duckling_data.pipeline import Pipeline, Request

    given = {name: value for name, value in given.items() if value is not None}
    asked = {name: given.pop(name) for name in Request.__dataclass_fields__ if name in given}
    asked |= {"shards": shard[1]} if shard else {}
    request = Request(workspace, workers or default_workers(), source, settings=given, **asked)
    pipeline = Pipeline(request, Reporter(quiet), joins=joins)
    if shard:
        pipeline.make_shard(targets[0], shard[0])
    else:
        pipeline.make(*targets)


@cli.command(cls=Grouped, headings=HEADINGS)
@options(TOKENIZER, *COMMON)
def download(**given: Any) -> None:
    """Fetch the source's files, or record yours.

    The hub's files come into corpus/; of local files it is recorded where they are, with their hashes.
    """
    _make(**given)


@cli.command(cls=Grouped, headings=HEADINGS)
@options(*COUNT, SHARD, *COMMON)
def count(**given: Any) -> None:
    """Count tokens: token_counts.parquet.

    The tokens of a sample of the stories, GPT-2's or --tokenizer's, with the order in which they first appear.
    """
    _make("count", **given)


@cli.command("build-vocab", cls=Grouped, headings=HEADINGS)
@options(*VOCAB, MAPPING, *COUNT, *COMMON)
def build_vocab(**given: Any) -> None:
    """Choose the live tokens: token_mapping.json.

    With --mapping yours is copied into the workspace, and nothing is counted.
    """
    _make("build-vocab", **given)


@cli.command(cls=Grouped, headings=HEADINGS)
@options(*PACK, *VOCAB, *COUNT, SHARD, *COMMON)
def pack(**given: Any) -> None:
    """Cut stories into rows: tokenized_dataset/.

    Every story is encoded, mapped to compact ids, and cut into rows of --ctx tokens.
    """
    _make("pack", **given)


@cli.command(cls=Grouped, headings=HEADINGS)
@click.argument("stage", type=click.Choice(["count", "pack"]))
@options(*PACK, *VOCAB, *COUNT, *COMMON)
def merge(stage: str, **given: Any) -> None:
    """Join the shards of a stage, count or pack.

    `--shard I/N` made them. The files are those that `count` or `pack` alone would make. Without options the settings
    are the shards' own.
    """
    _make(stage, joins=stage, **given)


@cli.command(cls=Grouped, headings=HEADINGS)
@options(*PACK, *VOCAB, *COUNT, *COMMON)
def run(**given: Any) -> None:
    """Make everything, and the report."""
    from duckling_data.stages import NAMES

    _make(*NAMES, **given)


@cli.command(cls=Grouped, headings=HEADINGS)
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
@option("--encoder", **ENCODER, default="tokenizers", help="What encodes the sample: not what made the rows.")
@option("--golden", type=FILE, default_is="no comparison", help="Also compare the digests with those in this file.")
@option("--write-golden", type=FILE, default_is="written nowhere", help="If all holds, write the digests to this file.")
@option("--reference", **choice(["duckling-ii"]), default_is="no comparison",
        help="Also compare the figures with this original's, which has the real TinyStories.")  # fmt: skip
@options(WORKERS, JSON, QUIET, DEBUG)
def verify(
    workspace: Path, source: tuple[str, ...], workers: int | None, as_json: bool, quiet: bool, **given: Any
) -> None:
    """Check that everything is whole and fits.

    Every file is hashed again, the source's too; counts, mapping and rows are derived again from the stories. Exit
    status 1 if something differs.
    """
    from duckling_data.base.executor import default_workers
    from duckling_data.base.progress import Reporter
    from duckling_data.verify import VerifyRequest, verify_workspace

    request = VerifyRequest(workspace, workers or default_workers(), sources=source, **given)
    print_checks(verify_workspace(request, Reporter(quiet)), as_json=as_json, quiet=quiet)


@cli.command()
@click.argument("place", metavar="PATH|URL")
@options(WORKSPACE, WORKERS, QUIET, DEBUG)
def publish(place: str, workspace: Path, workers: int | None, quiet: bool) -> None:
    """Copy what was made to a folder or a store.

    The mapping, counts, rows and report of a finished workspace go to a path, s3://, gs:// or hf://: compared with the
    manifest before, and there afterwards. manifest.json comes last. What is there already is not sent again.
    """
    from duckling_data.base.executor import default_workers
    from duckling_data.base.progress import Reporter
    from duckling_data.publish import publish as copy_artifacts

    copy_artifacts(workspace, place, workers or default_workers(), Reporter(quiet))


@cli.command()
@options(WORKSPACE)
@option("--row", type=int, default=0, help="The first row to decode.")
@option("--rows", type=click.IntRange(1), metavar="INTEGER", default=1, help="How many rows.")
@flag("--validation", help="Read tokenized_validation/ instead.")
@option("--text", default_is="rows", help="Show what becomes of each token of this text, instead of rows.")
@options(JSON, DEBUG)
def inspect(workspace: Path, row: int, rows: int, validation: bool, text: str | None, as_json: bool) -> None:
    """Decode rows, or show how tokens are mapped.

    With --text, each GPT-2 token of the text: its id, how often it was counted, its rank, what it becomes.
    """
    from duckling_data.inspect import decoded_rows, mapped_tokens, tokens_head

    found = mapped_tokens(workspace, text) if text is not None else decoded_rows(workspace, row, rows, validation)
    if as_json:
        click.echo(json_text([asdict(one) for one in found]))
        return
    if text is not None:
        click.echo(tokens_head(workspace))
    for one in found:
        click.echo(one)


@cli.command()
@options(WORKSPACE)
@options(JSON, DEBUG)
def status(workspace: Path, as_json: bool) -> None:
    """Show what there is: the source, and each stage.

    Quick: files are looked for, not read. `verify` reads and checks them.
    """
    from duckling_data.status import status_lines, workspace_status

    found = workspace_status(workspace)
    click.echo(json_text(found) if as_json else "\n".join(status_lines(found)))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    run_command(cli, PROGRAM, arguments, resume="the same command continues after the last finished stage.")
