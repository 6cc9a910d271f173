"""The runs of a workspace, those of its sweeps, too: what state each is in, how far it came, and its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duckling_data.base.errors import InputError
from duckling_data.base.locks import beside, holder
from duckling_train.compare.table import Column, aligned, validation_loss
from duckling_train.runs.checkpoint import checkpoints_of
from duckling_train.runs.layout import CONFIG, RUNS, SUMMARY
from duckling_train.runs.read import read_run


@dataclass(frozen=True)
class Listed:
    """A run as `list` shows it."""

    run: str
    """What the other commands take for it: its name in the workspace, or its path."""
    state: str
    """finished, training, unfinished or damaged."""
    detail: str
    """Who trains it, where it resumes, or what is damaged; empty for a finished run."""
    step: int | None
    """The last step that logged a loss."""
    steps: int | None
    last_loss: float | None
    """Nats a token, as the next."""
    validation_loss: float | None
    bytes: int
    """All its files together."""


def runs_of(workspace: Path) -> list[Listed]:
    """Return the runs in `runs/` and `sweeps/*/runs/` of the workspace, by their paths. Nothing is written.

    Raises InputError where the workspace is no folder.
    """
    if not workspace.is_dir():
        raise InputError(f"{workspace}: no such folder; expected a workspace; name it with --workspace.")
    folders = [*workspace.glob(f"{RUNS}/*"), *workspace.glob(f"sweeps/*/{RUNS}/*")]
    known = (folder for folder in folders if (folder / CONFIG).is_file() or (folder / SUMMARY).is_file())
    return [_listed(workspace, folder) for folder in sorted(known)]


def _listed(workspace: Path, folder: Path) -> Listed:
    name = folder.name if folder.parent == workspace / RUNS else str(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    try:
        run = read_run(folder)
    except InputError as error:
        return Listed(name, "damaged", str(error), None, None, None, None, size)
    state, detail = "finished", ""
    if not run.finished:
        checkpoint = next((f"resumes at step {step:,}" for step, _ in checkpoints_of(folder)[-1:]), "no checkpoint")
        trainer = holder(beside(folder))
        state, detail = ("training", trainer) if trainer else ("unfinished", checkpoint)
    return Listed(
        name, state, detail, step=run.steps[-1] if run.steps else None, steps=run.settings.get("steps"),
        last_loss=run.losses[-1] if run.losses else None, validation_loss=validation_loss(run), bytes=size,
    )  # fmt: skip


def table_of(listed: Sequence[Listed]) -> str:
    """Return an aligned table, a line a run; what is damaged comes behind it."""
    columns = [
        Column[Listed]("run", lambda run: run.run),
        Column(
            "state", lambda run: f"{run.state}, {run.detail}" if run.detail and run.state != "damaged" else run.state
        ),
        Column("steps", lambda run: None if run.steps is None else f"{run.step or 0:,} of {run.steps:,}"),
        Column("last loss", lambda run: run.last_loss, ".4f"),
        Column("validation loss", lambda run: run.validation_loss, ".4f"),
        Column("MB", lambda run: run.bytes / 1e6, ",.1f"),
    ]
    damaged = [f"{run.run}: {run.detail}" for run in listed if run.state == "damaged"]
    return "\n\n".join([aligned(columns, listed), *damaged])
