"""The commands of `duckling-train` other than training: generate, compare, sweep, template, verify. No logic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from duckling_train.options import config_options, verbosity_options, workspace_option
from duckling_train.sweep.options import given_lists, sweep_options

RUN = "RUN"


@click.command()
@click.argument("run", metavar=RUN)
@click.option("--prompt", "prompts", multiple=True, default=("Once upon a time",), metavar="TEXT",
              help="The text to continue; repeatable.")  # fmt: skip
@click.option("--tokens", type=int, default=100, help="New tokens.")
@click.option("--greedy", is_flag=True, help="Take the most likely token each time.  [default: off, sample]")
@click.option("--temperature", type=float, default=1.0, help="Divides the logits before sampling.")
@click.option("--top-k", type=int, default=0, help="Sample among the k most likely tokens; 0 is all.")
@click.option("--seed", type=int, default=42, help="Seed of the sampling, for each prompt anew.")
@workspace_option
@verbosity_options
@click.pass_context
def generate(
    context: click.Context,
    /,
    run: str,
    prompts: tuple[str, ...],
    workspace: Path,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Continue a prompt with RUN's model. RUN is a run's directory, or its name in the workspace."""
    given = {name for name in options if context.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    for name, flag in (("temperature", "--temperature"), ("top_k", "--top-k")):
        if options["greedy"] and name in given:
            raise click.UsageError(f"{flag} does not go with --greedy, which draws nothing; leave one of them out.")
    from duckling_train.runs.generate import Sampling, continuations
    from duckling_train.runs.read import find_run

    def note(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    for number, text in enumerate(continuations(find_run(workspace, run), prompts, Sampling(**options), note)):
        click.echo(text if number == 0 else f"\n{text}")


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("compare.png"), metavar="FILE.png",
              help="The plot of the losses; replaced if it is there.")  # fmt: skip
@workspace_option
@verbosity_options
def compare(runs: tuple[str, ...], out: Path, workspace: Path, quiet: bool, debug: bool) -> None:
    """Show runs side by side: a table of what differs and how they did, and a plot of their losses.

    RUN is a run's directory, or its name in the workspace.
    """
    from duckling_train.compare.table import comparison
    from duckling_train.runs.read import find_run

    table, plotted = comparison([find_run(workspace, run) for run in runs], out)
    click.echo(table)
    if not quiet:
        click.echo(f"losses plotted in {out}" if plotted else "nothing plotted: no loss is logged yet", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.ipynb")
@click.option("--overwrite", is_flag=True, help="Replace the file.  [default: off]")
@workspace_option
@verbosity_options
def template(file: Path, workspace: Path, overwrite: bool, quiet: bool, debug: bool) -> None:
    """Write a notebook to start an experiment from: Duckling II, set up and explained, with three worked examples."""
    from duckling_train.template import write_template

    write_template(file, workspace, overwrite=overwrite)
    if not quiet:
        click.echo(f"{file}: open it with jupyter lab, or run it with jupyter execute")


@click.command()
@workspace_option
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="The sweep's directory.  [default: WORKSPACE/sweeps/NAME]")  # fmt: skip
@click.option("--name", metavar="NAME",
              help="The sweep's name.  [default: from the grid, as layers-2_4-steps-200-seed-42]")  # fmt: skip
@click.option("--jobs", type=int, default=1, metavar="N",
              help="Runs side by side, each with an Nth of the cores as --threads, unless that is given.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an earlier sweep there.  [default: off]")
@config_options
@sweep_options
@click.option("--dry-run", is_flag=True, help="Print what would be trained and where, and stop.  [default: off]")
@verbosity_options
@click.pass_context
def sweep(
    context: click.Context,
    /,
    workspace: Path,
    out: Path | None,
    name: str | None,
    jobs: int,
    overwrite: bool,
    preset: str,
    config_file: Path | None,
    dry_run: bool,
    quiet: bool,
    **_settings: object,
) -> None:
    """Train every combination of the values given: a run each, and one table and one plot of them all.

    Any setting of a run takes a list of values between commas; one value holds for all runs. The two sweeps by which
    Duckling II was chosen, and one with several seeds:

    \b
        duckling-train sweep --layers 2,4,8 --batch-size 16 --steps 2000
        duckling-train sweep --batch-size 1,2,16,64 --steps 2000
        duckling-train sweep --layers 2,4 --seeds 42,43,44 --steps 200 --jobs 2

    The directory gets runs/ (ordinary run directories), table.md, table.csv and sweep.png. Called again it resumes:
    finished runs are kept, interrupted and failed ones trained, and a grid with a --name or --out may grow.
    A run that fails stops no other; the exit status is then 2 where settings are at fault, as with a loss that is not
    finite, and 3 for any other failure.
    """
    from duckling_data.base.progress import Reporter
    from duckling_train.sweep import runner

    lists = given_lists(context)
    planned = runner.plan(lists, workspace, out, name, jobs, preset=preset, file=config_file, overwrite=overwrite)
    if dry_run:
        click.echo(runner.describe(planned))
        return
    rows = runner.run(planned, Reporter(quiet), overwrite=overwrite)
    if not quiet:
        click.echo((planned.folder / runner.MADE[0]).read_text(encoding="utf-8"))
        click.echo(f"{planned.folder}: {', '.join(runner.MADE)}", err=True)
    if (failed := runner.failure(planned, rows)) is not None:
        raise failed


@click.command()
@click.argument("run", metavar=RUN)
@workspace_option
@verbosity_options
@click.pass_context
def verify(context: click.Context, /, run: str, workspace: Path, quiet: bool, debug: bool) -> None:
    """Check that RUN is whole and nothing in it has changed since it was trained.

    RUN is a run's directory, or its name in the workspace. A line for each thing that holds: its files (their SHA-256),
    settings, checkpoints, logs and model, and the data that it was trained on, where its workspace is at hand. An
    unfinished run is checked as far as it has come.

    Exit status 0 if all holds, 1 with a line on what differs if anything does, 2 if RUN is no run. It changes nothing.
    """
    from duckling_train.runs.read import find_run
    from duckling_train.runs.resume import workspace_of
    from duckling_train.runs.verify import verify_run

    run_dir = find_run(workspace, run)
    if context.get_parameter_source("workspace") != ParameterSource.COMMANDLINE:
        # Only the workspace that contains a run is known to be its own; a run's directory holds no data.
        workspace = workspace_of(run_dir, run_dir)
    for line in verify_run(run_dir, workspace):
        if not quiet:
            click.echo(line)


COMMANDS = (generate, compare, template, verify, sweep)
