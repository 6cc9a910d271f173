"""The command `duckling-train` and its subcommands: options in, one call each. Heavy imports are in the functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from duckling_data.base.command_line import CONTEXT, GroupedProgram, flag, run_command
from duckling_data.base.errors import InputError
from duckling_train import options
from duckling_train.commands import COMMANDS
from duckling_train.config import naming_flags
from duckling_train.options import PROGRAM, YES
from duckling_train.processes import exit_of_several, is_main_process
from duckling_train.settings import make_config

if TYPE_CHECKING:
    from duckling_train.config import TrainConfig


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
@options.seeds
@options.settings
@YES
@flag("-n", "--dry-run", help="Print what would be trained and written, and stop: exit status 2 where it would be "
      "refused.")  # fmt: skip
@options.verbosity
@click.version_option(package_name="duckling", prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def cli(
    context: click.Context, /, workspace: Path, out: Path | None, name: str | None, resume: str | None,
    overwrite: bool, preset: str, config_file: Path | None, seeds: tuple[int, ...] | None, yes: bool, dry_run: bool,
    quiet: bool, **_settings: object,
) -> None:  # fmt: skip
    """Train Duckling II on the workspace's dataset and write a run directory.

    The defaults are Duckling II's. With --engine reference a run on a CPU is bitwise that of the seed's notebook.
    """
    if context.invoked_subcommand is not None:
        refused = {parameter.name for parameter in context.command.params} - {"debug"}
        options.refuse(context, refused, f"comes before {context.invoked_subcommand}; write it after it.")
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
        if seeds is not None:
            _train_seeds(context, [replace(config, seed=seed) for seed in seeds], file=config_file, out=out, name=name)
            return
        run_dir = locate(workspace, out, name if name is not None else config.run_name())
        asks = not (yes or options.says_steps(context, config_file))
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
        click.echo(_in_a_line(run_dir, summary))


def _in_a_line(run_dir: Path, summary: dict[str, Any]) -> str:
    """Return what a finished run says of itself."""
    losses = f"loss {summary['first_loss']:.4f} to {summary['last_loss']:.4f}"
    steps = f"step {summary['last_logged_step']:,} of {summary['steps']:,}"
    evaluated = f", validation loss {summary['validation']['loss']:.4f}" if summary["validation"] else ""
    return f"{run_dir}: {losses} at {steps}{evaluated}, {summary['steps_per_second']:.1f} steps/s{_of_dead(summary)}"


def _of_dead(summary: dict[str, Any]) -> str:
    """Return what a run's dead rows did, as far as it is known, for its line."""
    names = {"moved": "centroid_moved", "coherence": "coherence", "mass": "dead_mass"}
    known = {word: (summary.get("dynamics") or {}).get(name) for word, name in names.items()}
    told = [f"{word} {value:.3g}" for word, value in known.items() if value is not None]
    return f"; dead rows: {', '.join(told)}" if told else ""


def _train_seeds(
    context: click.Context, configs: Sequence[TrainConfig], *, file: Path | None, out: Path | None, name: str | None
) -> None:
    """Train a run of each config, all at once, and print a line of each. Raises the first error of a run."""
    options.refuse(context, {"seed"}, "does not go with --seeds.")
    workspace, quiet, overwrite = (context.params[each] for each in ("workspace", "quiet", "overwrite"))
    if not (context.params["yes"] or context.params["dry_run"] or options.says_steps(context, file)):
        click.echo(f"would train {len(configs)} runs of {configs[0].steps:,} steps")
        raise click.UsageError("Give --steps, or -y for their default.")
    from duckling_train.runs.layout import locate
    from duckling_train.runs.many import plan_many, train_many

    names = [f"{name}-seed-{each.seed}" if name is not None else each.run_name() for each in configs]
    places = [out / f"seed-{each.seed}" if out is not None else None for each in configs]
    run_dirs = [locate(workspace, place, each) for place, each in zip(places, names, strict=True)]
    if context.params["dry_run"]:
        click.echo("\n".join(plan_many(configs, workspace, run_dirs, overwrite=overwrite)))
        return
    ends = train_many(configs, workspace, run_dirs, overwrite=overwrite, quiet=quiet)
    for run_dir, end in zip(run_dirs, ends, strict=True):
        if not quiet:
            click.echo(f"{run_dir}: {end}" if isinstance(end, InputError) else _in_a_line(run_dir, end))
    failed = [end for end in ends if isinstance(end, InputError)]
    if failed:
        raise InputError(f"{len(failed)} of {len(ends)} runs ended early; the first: {failed[0]}")


def _resume(context: click.Context, workspace: Path, run: str, *, quiet: bool) -> tuple[Path, dict[str, Any]]:
    """Finish the run that `--resume` names. Returns its directory and summary."""
    refused = {"out", "name", "overwrite", "preset", "config_file", "seeds", "yes", "dry_run"}
    options.refuse(context, refused, "does not go with --resume, which takes the run as it is.")
    from duckling_train.runs.read import find_run
    from duckling_train.runs.resume import resume, workspace_of

    run_dir = find_run(workspace, run, links=False)
    if not options.given(context, "workspace"):
        workspace = workspace_of(run_dir, workspace)
    return run_dir, resume(run_dir, workspace, options.given_settings(context), quiet=quiet)


for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    resume = "resume an unfinished run with --resume RUN, a sweep with the same command."
    try:
        with naming_flags():
            run_command(cli, PROGRAM, arguments, resume=resume, prints=is_main_process())
    except SystemExit as request:
        exit_of_several(int(request.code or 0))
        raise
