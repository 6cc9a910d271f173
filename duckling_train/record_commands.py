"""The subcommands of `duckling-train` that show what a run recorded: options in, one call each. Imports are inside."""

from __future__ import annotations

from pathlib import Path

import click

from duckling_data.base.command_line import JSON, choice, flag, json_text
from duckling_data.base.errors import printable
from duckling_train import options


@click.command()
@click.argument("run", metavar="RUN")
@flag("--around", help="Leave out the steps whose files are missing or damaged, instead of refusing the record.")
@options.workspace
@JSON
@options.verbosity
@click.pass_context
def measure(context: click.Context, /, run: str, around: bool, workspace: Path, as_json: bool, quiet: bool) -> None:
    """Measure how the rows of W moved in RUN, which was trained with --record.

    RUN is a run's directory, or its name in the workspace. Its directory gets measures.parquet, a row for each recorded
    step, and rows.parquet, a row for each recorded token; earlier ones are replaced. docs/dynamics.md describes the
    columns. A run that still trains is measured as far as it has come.
    """
    from duckling_data.base.memory import keep_freed_memory

    keep_freed_memory()
    from duckling_data.base.progress import Reporter
    from duckling_train.runs.layout import MEASURED_ROWS, MEASURES
    from duckling_train.runs.measured import in_words, measure_run
    from duckling_train.runs.read import find_run
    from duckling_train.runs.resume import workspace_of

    run_dir = find_run(workspace, run, links=False)
    if not options.given(context, "workspace"):
        workspace = workspace_of(run_dir, workspace)
    found = measure_run(run_dir, workspace, Reporter(quiet), around=around)
    if as_json:
        click.echo(json_text(found.summary))
    elif not quiet:
        click.echo(in_words(found.summary))
    if not quiet:
        click.echo(printable(f"{run_dir}: {MEASURES}, {MEASURED_ROWS}"), err=True)


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="The page; an earlier one is replaced.  [default: RUN/report.html; report.html for several]",
)
@flag("--open", "open_it", help="Open the page in the browser.")
@options.workspace
@options.verbosity
def report(runs: tuple[str, ...], out: Path | None, open_it: bool, workspace: Path, quiet: bool) -> None:
    """Write a page that shows how the dead rows of a RUN moved, or how those of several did.

    RUN is a run's directory, or its name in the workspace. The page is one file that needs no network. It shows what
    the run's files hold: most of it needs --record when the run is trained, and duckling-train measure afterwards.
    """
    from duckling_data.base.memory import keep_freed_memory

    keep_freed_memory()
    from duckling_data.base.progress import Reporter
    from duckling_train.report.write import open_page, write_report
    from duckling_train.runs.read import find_run

    run_dirs = [find_run(workspace, run, links=out is not None or len(runs) > 1) for run in runs]
    path = write_report(run_dirs, workspace, out, Reporter(quiet))
    if not quiet:
        click.echo(printable(f"{path}: open it in a browser"), err=True)
    if open_it:
        open_page(path)


@click.command("plots")
@click.argument("run", metavar="RUN")
@click.option("--format", default="png", help="The format of the files.", **choice(["png", "svg", "pdf"]))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="The folder of the files; earlier ones are replaced.  [default: RUN/plots]")  # fmt: skip
@click.option("--only", metavar="NAME[,...]", help="These plots alone.  [default: all that the run has data for]")
@click.option("--movie", type=click.Path(path_type=Path), metavar="FILE",
              help="Also a movie of the dead rows: FILE.gif, or FILE.mp4, which needs ffmpeg.")  # fmt: skip
@options.workspace
@options.verbosity
def draw_plots(
    run: str, format: str, out: Path | None, only: str | None, movie: Path | None, workspace: Path, quiet: bool
) -> None:
    """Write plots of RUN for print, 3.4 inches wide: of its loss, its record and what was measured of it.

    RUN is a run's directory, or its name in the workspace. docs/plots.md lists the plots; those that lack a record, a
    recorded tensor or duckling-train measure are left out, each with a line. Equal runs give equal bytes.
    """
    from duckling_data.base.progress import Reporter
    from duckling_train.plots.of_a_run import plot_run
    from duckling_train.runs.read import find_run

    names = None if only is None else [name.strip() for name in only.split(",")]
    run_dir = find_run(workspace, run, links=out is not None)
    plot_run(run_dir, workspace, format=format, out=out, only=names, movie=movie, reporter=Reporter(quiet))


RECORD_COMMANDS = (measure, report, draw_plots)
