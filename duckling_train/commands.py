"""The subcommands of `duckling-train`, which act on runs: options in, one call each. Imports that cost are inside."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from duckling_data.base.command_line import JSON, Grouped, choice, flag, json_text, print_checks
from duckling_data.base.errors import printable
from duckling_train import options
from duckling_train.options import PROGRAM, YES
from duckling_train.record_commands import RECORD_COMMANDS


@click.command()
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
        options.refuse(context, {"temperature", "top_k"}, why)
    from duckling_data.base.progress import Reporter
    from duckling_train.runs.generate import Sampling, continuations
    from duckling_train.runs.read import find_run

    note = Reporter(quiet).say
    for number, text in enumerate(continuations(find_run(workspace, run), prompts, Sampling(**sampling), note)):
        click.echo(text if number == 0 else f"\n{text}")


@click.command()
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


@click.command("list")
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


@click.command()
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


@click.command(cls=Grouped, headings=options.HEADINGS)
@options.workspace
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="The sweep's directory.  [default: WORKSPACE/sweeps/NAME]")  # fmt: skip
@click.option("--name", metavar="NAME",
              help="The sweep's name.  [default: from the grid, as layers-2_4-steps-200-seed-42]")  # fmt: skip
@click.option("--jobs", type=int, default=1, metavar="N",
              help="Runs side by side, each with an Nth of the cores as --threads, unless that is given.")  # fmt: skip
@click.option(
    "--executor",
    **choice(["local", "ray"]),
    default="local",
    help="What makes the runs: processes here, or tasks on a Ray cluster (pip install 'duckling[ray]'). Each "
    "node needs this Duckling, and workspace and sweep in a folder that all share under the same path.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="The cluster, as auto or HOST:PORT.  [default: one started on this machine, for the time of the sweep]",
)
@click.option(
    "--cpus-per-run",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="CPUs that a run takes on Ray, and its --threads, unless that is given.  [default: its --threads, else 1]",
)
@click.option(
    "--gpus-per-run",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="N",
    help="GPUs that a run takes on Ray, or the share of one.",
)
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

    on_ray = given["executor"] == "ray"
    others = {"jobs"} if on_ray else {"ray_address", "cpus_per_run", "gpus_per_run"}
    options.refuse(context, others, f"does not go with --executor {given['executor']}; leave one of them out.")
    from duckling_train.sweep import runner
    from duckling_train.sweep.cluster import Cluster

    lists = options.given_lists(context)
    cluster = Cluster(given["ray_address"], given["cpus_per_run"], given["gpus_per_run"]) if on_ray else None
    where = given["workspace"], given["out"], given["name"], given["jobs"]
    planned = runner.plan(
        lists, *where, preset=given["preset"], file=given["config_file"], overwrite=overwrite, cluster=cluster
    )
    asks = not (yes or options.says_steps(context, given["config_file"]))
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


@click.command()
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


@click.command("inspect-embedding")
@click.argument("path", metavar="PATH|RUN")
@click.option("--unused", metavar="IDS", help="Ids known to be unused, as 50257:50304,123; the end of a range is left "
              "out.  [default: those that the tokenizer shows]")  # fmt: skip
@click.option("--tensor", metavar="NAME", help="The matrix.  [default: the embedding, and the output matrix]")
@click.option("--top", type=click.IntRange(min=0), default=10, metavar="N", help="Ids and groups that each list shows.")
@options.workspace
@JSON
@options.verbosity
def inspect_embedding(
    path: str, unused: str | None, tensor: str | None, top: int, workspace: Path, as_json: bool, quiet: bool
) -> None:
    """Measure the embedding of any model in safetensors, or of a RUN: by path, or by name in the workspace.

    A file, or a directory with model.safetensors or with an index of several; bf16, fp16 or float32, tied or not. Shown
    are the rows' norms and mean, groups of identical rows (black holes), and lattice components. Where unused ids are
    known, the indicators of under-trained tokens (Land & Bartolo 2024) rank all others.

    Unused ids are proposed where the directory has a tokenizer: ids without a token, tokens that no text leads to,
    tokens that no merge makes. No code of the model is run, and no pickle is opened.
    """
    from duckling_data.base.progress import Reporter
    from duckling_train.embedding.figures import inspect
    from duckling_train.embedding.place import place_of
    from duckling_train.embedding.text import text_of
    from duckling_train.ids import read_ids

    ids = read_ids(unused, "--unused") if unused is not None else None
    found = inspect(place_of(workspace, path), tensor=tensor, unused=ids, top=top, reporter=Reporter(quiet))
    click.echo(json_text(found.json()) if as_json else text_of(found, top))


COMMANDS = (generate, compare, list_runs, template, sweep, verify, *RECORD_COMMANDS, inspect_embedding)
