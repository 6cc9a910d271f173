"""The command `duckling-train`. Only click and the standard library are imported up here: `--help` is quick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from duckling_data.base.command_line import run_command
from duckling_train.commands import COMMANDS
from duckling_train.options import config_options, given_settings, setting_options, verbosity_options, workspace_option
from duckling_train.processes import is_main_process
from duckling_train.settings import make_config

PROGRAM = "duckling-train"


@click.group(
    invoke_without_command=True, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]}
)
@workspace_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The run's directory.  [default: WORKSPACE/runs/NAME]"
)
@click.option("--name", metavar="NAME", help="The run's name.  [default: from the settings, as steps-10000-seed-42]")
@click.option("--resume", metavar="RUN", help="Resume an interrupted run: its directory, or its name.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run there.  [default: off]")
@config_options
@setting_options
@click.option("--dry-run", is_flag=True, help="Print what would be trained and written, and stop.  [default: off]")
@verbosity_options
@click.version_option(package_name="duckling", prog_name=PROGRAM)
@click.pass_context
def cli(
    context: click.Context,
    /,
    workspace: Path,
    out: Path | None,
    name: str | None,
    resume: str | None,
    overwrite: bool,
    preset: str,
    config_file: Path | None,
    dry_run: bool,
    quiet: bool,
    **_settings: object,
) -> None:
    """Train Duckling II on the workspace's dataset and write a run directory.

    The defaults are Duckling II's. On a CPU the run is bitwise that of the seed's notebook.
    """
    if context.invoked_subcommand is not None:
        _refuse_misplaced_options(context)
        return
    if resume is not None:
        run_dir, summary = _resume(context, resume, quiet=quiet)
    else:
        from duckling_train.runs.layout import locate

        if out is not None and name is not None:
            raise click.UsageError("--name does not go with --out, which is the whole path; leave one of them out.")
        config = make_config(given_settings(context), preset=preset, file=config_file)
        run_dir = locate(workspace, out, name if name is not None else config.run_name())
        from duckling_train.runs.train import describe, train

        if dry_run:
            click.echo(describe(config, workspace, run_dir, overwrite=overwrite))
            return
        summary = train(config, workspace, run_dir, overwrite=overwrite, quiet=quiet)
    if not quiet and is_main_process():
        click.echo(
            f"{run_dir}: loss {summary['first_loss']:.4f} to {summary['last_loss']:.4f} "
            f"at step {summary['last_logged_step']:,} of {summary['steps']:,}, "
            f"{summary['steps_per_second']:.1f} steps/s"
        )


def _resume(context: click.Context, run: str, *, quiet: bool) -> tuple[Path, dict[str, Any]]:
    """Finish the run that `--resume` names. Returns its directory and summary."""
    for name in ("out", "name", "overwrite", "preset", "config_file", "dry_run"):
        if _given(context, name):
            option = next(parameter.opts[0] for parameter in context.command.params if parameter.name == name)
            raise click.UsageError(f"{option} does not go with --resume, which takes the run as it is.")
    from duckling_train.runs.read import find_run
    from duckling_train.runs.resume import resume, workspace_of

    workspace: Path = context.params["workspace"]
    run_dir = find_run(workspace, run)
    if not _given(context, "workspace"):
        workspace = workspace_of(run_dir, workspace)
    return run_dir, resume(run_dir, workspace, given_settings(context), quiet=quiet)


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


for command in COMMANDS:
    cli.add_command(command)


def _refuse_misplaced_options(context: click.Context) -> None:
    """Raise click.UsageError for an option before the subcommand: it would be ignored there."""
    for parameter in context.command.params:
        if _given(context, str(parameter.name)) and parameter.name != "debug":
            raise click.UsageError(f"{parameter.opts[0]} comes before {context.invoked_subcommand}; write it after it.")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    resume = "resume an unfinished run with --resume RUN, a sweep with the same command."
    run_command(cli, PROGRAM, arguments, resume=resume, prints=is_main_process())
