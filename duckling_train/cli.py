"""The command `duckling-train` and its subcommands: options in, one call each. Heavy imports are in the functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from duckling_data.base.command_line import (
    CONTEXT,
    JSON,
    Grouped,
    GroupedProgram,
    flag,
    json_text,
    print_checks,
    run_command,
)
from duckling_data.base.errors import InputError, printable
from duckling_train import options
from duckling_train.config import naming_flags
from duckling_train.processes import exit_of_several, is_main_process
from duckling_train.settings import make_config, read_settings

PROGRAM = "duckling-train"


YES = flag("-y", "--yes", help="Train without --steps: as many as is their default.")


@click.group(
    cls=GroupedProgram, headings=options.HEADINGS, invoke_without_command=True,
    context_settings={"show_default": True, **CONTEXT},
)  # fmt: skip
@options.workspace
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The run's directory.  [default: WORKSPACE/runs/NAME]"
)
@click.option("--name", metavar="NAME", help="The run's name.  [default: from the settings, as steps-10000-seed-42]")
@click.option("--resume", metavar="RUN", help="Resume an interrupted run: its directory, or its name.")
@flag("--overwrite", help="Replace an earlier run there.")
@options.config
@options.settings
@YES
@flag("-n", "--dry-run", help="Print what would be trained and written, and stop: exit status 2 where it would be "
      "refused.")  # fmt: skip
@options.verbosity
@click.version_option(package_name="duckling", prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def cli(
    context: click.Context, /, workspace: Path, out: Path | None, name: str | None, resume: str | None,
    overwrite: bool, preset: str, config_file: Path | None, yes: bool, dry_run: bool, quiet: bool, **_settings: object,
) -> None:  # fmt: skip
    """Train Duckling II on the workspace's dataset and write a run directory.

    The defaults are Duckling II's. On a CPU the run is bitwise that of the seed's notebook.
    """
    if context.invoked_subcommand is not None:
        refused = {parameter.name for parameter in context.command.params} - {"debug"}
        _refuse(context, refused, f"comes before {context.invoked_subcommand}; write it after it.")
        return
    if resume is not None:
        run_dir, summary = _resume(context, workspace, resume, quiet=quiet)
    else:
        from duckling_train.runs.layout import locate

        if out is not None and name is not None:
            raise click.UsageError("--name does not go with --out, which is the whole path; leave one of them out.")
        from duckling_train.data import fitting

        sizes = fitting(workspace)
        config = make_config(options.given_settings(context), preset=preset, file=config_file, sizes=sizes)
        run_dir = locate(workspace, out, name if name is not None else config.run_name())
        asks = not (yes or says_steps(context, config_file))
        from duckling_train.runs.plan import plan
        from duckling_train.runs.train import train

        if dry_run or asks:
            planned = plan(config, workspace, run_dir, overwrite=overwrite)
            if asks and not dry_run:
                if planned.refused:
                    raise InputError(planned.refused[0])
                steps = f"would train {config.steps:,} steps on {planned.dataset}"
                click.echo(f"{steps}, {config.parameters:,} parameters, and write {run_dir}")
                raise click.UsageError(f"Give --steps, or -y for these {config.steps:,}.")
            click.echo(planned)
            context.exit(InputError.exit_status if planned.refused else 0)
        summary = train(config, workspace, run_dir, overwrite=overwrite, quiet=quiet)
    if not quiet and is_main_process():
        losses = f"loss {summary['first_loss']:.4f} to {summary['last_loss']:.4f}"
        steps = f"step {summary['last_logged_step']:,} of {summary['steps']:,}"
        evaluated = f", validation loss {summary['validation']['loss']:.4f}" if summary["validation"] else ""
        click.echo(f"{run_dir}: {losses} at {steps}{evaluated}, {summary['steps_per_second']:.1f} steps/s")


def _resume(context: click.Context, workspace: Path, run: str, *, quiet: bool) -> tuple[Path, dict[str, Any]]:
    """Finish the run that `--resume` names. Returns its directory and summary."""
    refused = {"out", "name", "overwrite", "preset", "config_file", "yes", "dry_run"}
    _refuse(context, refused, "does not go with --resume, which takes the run as it is.")
    from duckling_train.runs.read import find_run
    from duckling_train.runs.resume import resume, workspace_of

    run_dir = find_run(workspace, run, links=False)
    if not options.given(context, "workspace"):
        workspace = workspace_of(run_dir, workspace)
    return run_dir, resume(run_dir, workspace, options.given_settings(context), quiet=quiet)


def says_steps(context: click.Context, file: Path | None) -> bool:
    """Return whether the user says how many steps: by the flag, or in the file of settings."""
    return options.given(context, "steps") or (file is not None and "steps" in read_settings(file))


def _refuse(context: click.Context, names: Collection[str | None], why: str) -> None:
    """Raise click.UsageError for the first of these options that was given: it would be ignored."""
    for parameter in context.command.params:
        if parameter.name in names and options.given(context, parameter.name):
            raise click.UsageError(f"{max(parameter.opts, key=len)} {why}")


@cli.command()
@click.argument("run", metavar="RUN")
@click.option("--prompt", "prompts", multiple=True, default=("Once upon a time",), metavar="TEXT",
              help="The text to continue; repeatable.")  # fmt: skip
@click.option("--tokens", type=int, default=100, help="New tokens.")
@click.option("--greedy", is_flag=True, help="Take the most likely token each time.  [default: off, sample]")
@click.option("--temperature", type=float, default=1.0, help="Divides the logits before sampling.")
@click.option("--top-k", type=int, default=0, help="Sample among the k most likely tokens; 0 is all.")
@click.option("--seed", type=int, default=42, help="Seed of the sampling, for each prompt anew.")
@options.workspace
@options.verbosity
@click.pass_context
def generate(
    context: click.Context, /, run: str, prompts: tuple[str, ...], workspace: Path, quiet: bool, **sampling: Any
) -> None:
    """Continue a prompt with RUN's model. RUN is a run's directory, or its name in the workspace."""
    if sampling["greedy"]:
        why = "does not go with --greedy, which draws nothing; leave one of them out."
        _refuse(context, {"temperature", "top_k"}, why)
    from duckling_data.base.progress import Reporter
    from duckling_train.runs.generate import Sampling, continuations
    from duckling_train.runs.read import find_run

    note = Reporter(quiet).say
    for number, text in enumerate(continuations(find_run(workspace, run), prompts, Sampling(**sampling), note)):
        click.echo(text if number == 0 else f"\n{text}")


@cli.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("compare.png"), metavar="FILE.png",
              help="The plot of the losses; replaced if it is there.")  # fmt: skip
@options.workspace
@JSON
@options.verbosity
def compare(runs: tuple[str, ...], out: Path, workspace: Path, as_json: bool, quiet: bool) -> None:
    """Show runs side by side: a table of what differs and how they did, and a plot of their losses.

    RUN is a run's directory, or its name in the workspace.
    """
    from duckling_train.compare.table import comparison, figures, table
    from duckling_train.runs.read import find_run

    read, plotted = comparison([find_run(workspace, run) for run in runs], out)
    click.echo(json_text(figures(read)) if as_json else table(read))
    if not quiet:
        click.echo(
            printable(f"losses plotted in {out}" if plotted else "nothing plotted: no loss is logged yet"), err=True
        )


@cli.command("list")
@options.workspace
@JSON
@options.verbosity
def list_runs(workspace: Path, as_json: bool, quiet: bool) -> None:
    """List the workspace's runs, those of its sweeps, too: state, steps, losses, size."""
    from duckling_train.compare.listing import runs_of, table_of

    found = runs_of(workspace)
    if as_json or found:
        click.echo(json_text([asdict(run) for run in found]) if as_json else table_of(found))
    elif not quiet:
        click.echo(f"{workspace}: holds no runs; duckling-train --steps 10000 makes one", err=True)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.ipynb")
@flag("--overwrite", help="Replace the file.")
@options.workspace
@options.verbosity
def template(file: Path, workspace: Path, overwrite: bool, quiet: bool) -> None:
    """Write a notebook to start an experiment from: Duckling II, set up and explained, with three worked examples."""
    from duckling_train.template import write_template

    lacks = write_template(file, workspace, overwrite=overwrite)
    if not quiet:
        if lacks is not None:
            click.echo(f"{PROGRAM}: the notebook does not run yet: {lacks}", err=True)
        click.echo(f"{file}: open it with jupyter lab, or run it with jupyter execute")


@cli.command(cls=Grouped, headings=options.HEADINGS)
@options.workspace
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="The sweep's directory.  [default: WORKSPACE/sweeps/NAME]")  # fmt: skip
@click.option("--name", metavar="NAME",
              help="The sweep's name.  [default: from the grid, as layers-2_4-steps-200-seed-42]")  # fmt: skip
@click.option("--jobs", type=int, default=1, metavar="N",
              help="Runs side by side, each with an Nth of the cores as --threads, unless that is given.")  # fmt: skip
@flag("--overwrite", help="Replace an earlier sweep there.")
@options.config
@options.setting_lists
@YES
@flag("-n", "--dry-run", help="Print what would be trained and where, and stop.")
@options.verbosity
@click.pass_context
def sweep(context: click.Context, /, overwrite: bool, yes: bool, dry_run: bool, quiet: bool, **given: Any) -> None:
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

    lists = options.given_lists(context)
    where = given["workspace"], given["out"], given["name"], given["jobs"]
    planned = runner.plan(lists, *where, preset=given["preset"], file=given["config_file"], overwrite=overwrite)
    asks = not (yes or says_steps(context, given["config_file"]))
    if dry_run or asks:
        click.echo(runner.describe(planned))
        if asks and not dry_run:
            raise click.UsageError("Give --steps, or -y for their default.")
        return
    rows = runner.run(planned, Reporter(quiet), overwrite=overwrite)
    if not quiet:
        click.echo((planned.folder / runner.MADE[0]).read_text(encoding="utf-8"))
        click.echo(f"{planned.folder}: {', '.join(runner.MADE)}", err=True)
    if (failed := runner.failure(planned, rows)) is not None:
        raise failed


@cli.command()
@click.argument("run", metavar="RUN")
@options.workspace
@JSON
@options.verbosity
@click.pass_context
def verify(context: click.Context, /, run: str, workspace: Path, as_json: bool, quiet: bool) -> None:
    """Check that RUN is whole and nothing in it has changed since it was trained.

    RUN is a run's directory, or its name in the workspace. A line for each thing that holds: its files (their SHA-256),
    settings, checkpoints, logs and model, and the data that it was trained on, where its workspace is at hand. An
    unfinished run is checked as far as it has come.

    Exit status 0 if all holds, 1 with a line on what differs if anything does, 2 if RUN is no run. It changes nothing.
    """
    from duckling_data.base.progress import Reporter
    from duckling_train.runs.read import find_run
    from duckling_train.runs.resume import workspace_of
    from duckling_train.runs.verify import verify_run

    run_dir = find_run(workspace, run)
    if not options.given(context, "workspace"):
        # Only the workspace that contains a run is known to be its own; a run's directory holds no data.
        workspace = workspace_of(run_dir, run_dir)
    print_checks(verify_run(run_dir, workspace, Reporter(quiet)), as_json=as_json, quiet=quiet)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    resume = "resume an unfinished run with --resume RUN, a sweep with the same command."
    try:
        with naming_flags():
            run_command(cli, PROGRAM, arguments, resume=resume, prints=is_main_process())
    except SystemExit as request:
        exit_of_several(int(request.code or 0))
        raise
