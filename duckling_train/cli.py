"""The command `duckling-train`. Only click and the standard library are imported up here: `--help` is quick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from duckling_data.command_line import run_command
from duckling_train.config import TrainConfig

PROGRAM = "duckling-train"


@click.group(
    invoke_without_command=True, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]}
)
@click.option("--steps", type=int, default=TrainConfig.steps, help="Optimizer steps.")
@click.option("-w", "--workspace", type=click.Path(path_type=Path), default=Path("artifacts"), metavar="DIR",
              envvar="DUCKLING_WORKSPACE", show_envvar=True, help="Where duckling-data put its two files.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The run's directory.  [default: WORKSPACE/runs/NAME]"
)
@click.option("--name", metavar="NAME", help="The run's name.  [default: from the settings, as steps-10000-seed-42]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run there.  [default: off]")
@click.option("--seed", type=int, default=TrainConfig.seed, help="Seed of the weights and of the order of the rows.")
@click.option("--batch-size", type=int, default=TrainConfig.batch_size, help="Rows a step.")
@click.option("--learning-rate", type=float, default=TrainConfig.learning_rate, help="Peak; falls linearly to 0.")
@click.option("--logging-steps", type=int, default=TrainConfig.logging_steps, help="Steps between two logged losses.")
@click.option("--device", metavar="auto|cpu|cuda|mps", default=TrainConfig.device, help="Where to train.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained and written, and stop.  [default: off]")
@click.option("--quiet", is_flag=True, help="Print errors only.  [default: off]")
@click.option("--debug", is_flag=True, help="Add the traceback to an error.  [default: off]")
@click.version_option(package_name="duckling", prog_name=PROGRAM)
@click.pass_context
def cli(
    context: click.Context,
    /,
    workspace: Path,
    out: Path | None,
    name: str | None,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
    debug: bool,
    **settings: Any,
) -> None:
    """Train Duckling II on the workspace's dataset and write a run directory.

    The defaults are Duckling II's. On a CPU the run is bitwise that of the seed's notebook.
    """
    if context.invoked_subcommand is not None:
        return
    from duckling_train.run_dir import locate

    config = TrainConfig(**settings)
    run_dir = locate(workspace, out, name if name is not None else config.run_name())
    from duckling_train.train import describe, train

    if dry_run:
        click.echo(describe(config, workspace, run_dir, overwrite=overwrite))
        return
    summary = train(config, workspace, run_dir, overwrite=overwrite, quiet=quiet)
    if not quiet:
        click.echo(
            f"{run_dir}: loss {summary['first_loss']:.4f} to {summary['last_loss']:.4f} in {summary['steps']:,} steps, "
            f"{summary['steps_per_second']:.1f} steps/s"
        )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    run_command(cli, PROGRAM, arguments, go_on="the run is not whole: --overwrite starts it again.")
