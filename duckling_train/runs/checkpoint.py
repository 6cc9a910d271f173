"""Checkpoints: everything that a run needs to go on bitwise, in `checkpoints/step-NNNNNNNN/`, whole or not there.

A checkpoint is written under a partial name, flushed, and renamed, so a half-written one is never picked up. It holds

    weights.safetensors      the model's parameters, in their own dtype
    optimizer.safetensors    the optimizer's state, one tensor a parameter and moment: `exp_avg/transformer.wte.weight`
    trainer_state.json       the Trainer's own counters
    metrics.jsonl, …         the run's logs up to this step
    checkpoint.json          the step, the running loss, the schedule, what run it belongs to, each file's SHA-256

There is no random state in it: no dropout draws, an epoch's order of rows comes from the seed and the epoch alone, and
stochastic rounding from the seed and the step.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL, replace_directory, sync_directory, write_bytes
from duckling_data.base.records import short
from duckling_data.base.strict_json import digest_json, read_json, write_json
from duckling_data.workspace.manifest import describe_output

CHECKPOINTS = "checkpoints"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
TRAINER_STATE = "trainer_state.json"  # the name that the Trainer reads
CHECKPOINT = "checkpoint.json"
RECORD_DIGEST = "record_sha256"
"""The digest, in `checkpoint.json`, of all else in it."""
FORMAT_VERSION = 1
RECORD_LIMIT = 1 << 20
"""The largest record of a checkpoint that is read, in bytes."""
KEPT = 2
"""How many checkpoints stay while a run goes on: if the newest is damaged by a disk, there is one before it."""

NAME = "step-{:08d}"
NAME_PATTERN = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    path: Path
    step: int
    """Optimizer steps done."""
    state: dict[str, Any]
    """The engine's own values in `checkpoint.json`."""


def checkpoints_of(run_dir: Path) -> list[tuple[int, Path]]:
    """Return (step, directory) of the run's finished checkpoints, oldest first. Partial ones are not among them."""
    folder = run_dir / CHECKPOINTS
    entries = folder.iterdir() if folder.is_dir() else ()
    matches = ((NAME_PATTERN.fullmatch(entry.name), entry) for entry in entries)
    return sorted((int(match[1]), entry) for match, entry in matches if match and entry.is_dir())


class Checkpoints:
    """The checkpoints of one run; `identity` is what it is (settings and data): a checkpoint of another is refused."""

    def __init__(self, run_dir: Path, identity: dict[str, Any], logs: tuple[str, ...], *, keep_all: bool) -> None:
        self.run_dir = run_dir
        self.identity = identity
        self.logs = logs
        self.keep_all = keep_all

    def write(self, step: int, files: dict[str, bytes], state: dict[str, Any]) -> None:
        """Write the checkpoint of `step` from its files and the engine's `state` (JSON), and remove those too old.

        Raises OutsideError when the disk fails; the checkpoints before stay as they are.
        """
        place = self.run_dir / CHECKPOINTS / NAME.format(step)
        partial = place.with_name(place.name + PARTIAL)
        try:
            with disk_errors(place):
                remove(partial)
                partial.mkdir(parents=True)
                for name in self.logs:
                    if (self.run_dir / name).exists():
                        files = {**files, name: (self.run_dir / name).read_bytes()}
                for name, content in files.items():
                    write_bytes(partial / name, content)
                described = {name: describe_output(partial / name) for name in sorted(files)}
                record = {"format": FORMAT_VERSION, "step": step, **self.identity, "files": described, "state": state}
                write_json(partial / CHECKPOINT, {**record, RECORD_DIGEST: digest_json(record)})
                replace_directory(partial, place)
                sync_directory(self.run_dir)  # the first one made the folder of them all
        except BaseException:
            remove(partial)
            raise
        if not self.keep_all:
            for _step, old in checkpoints_of(self.run_dir)[:-KEPT]:
                remove(old)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint, checked whole, or None where there is none.

        Raises InputError when it is damaged or belongs to a run with other settings or data.
        """
        found = checkpoints_of(self.run_dir)
        return self.read(*found[-1]) if found else None

    def read(self, step: int, path: Path) -> Checkpoint:
        """Return the checkpoint in `path`, checked whole and this run's. Raises InputError as `newest` does."""
        if path.is_symlink():
            raise InputError(f"{path} is a link out of the run: {instead(path)}")
        content = read_json(path / CHECKPOINT, RECORD_LIMIT) if _is_inside(path, CHECKPOINT) else None
        if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION or content.get("step") != step:
            raise InputError(f"{path}: {CHECKPOINT} is missing or not one of step {step}: {instead(path)}")
        if content.pop(RECORD_DIGEST, None) != digest_json(content):
            raise InputError(f"{path}: {CHECKPOINT} is damaged (not its own SHA-256): {instead(path)}")
        for name, value in self.identity.items():
            if content.get(name) != value:
                raise InputError(
                    f"{path} is from a run with other {name}: {_difference(content.get(name), value)}; {instead(path)}"
                )
        described = content.get("files")
        if not isinstance(described, dict) or not {WEIGHTS, OPTIMIZER, TRAINER_STATE} <= described.keys():
            raise InputError(f"{path}: {CHECKPOINT} lists no weights, optimizer or trainer state: {instead(path)}")
        for name, expected in described.items():
            if not _is_inside(path, name) or describe_output(path / name) != expected:
                raise InputError(f"{path / name} is damaged (not the recorded SHA-256): {instead(path)}")
        for name in self.logs:
            if name not in described and (path / name).exists():
                raise InputError(f"{path / name} is not the run's ({CHECKPOINT} does not list it): {instead(path)}")
        _check_state(path, step, content.get("state"))
        return Checkpoint(path, step, content["state"])

    def restore_logs(self, checkpoint: Checkpoint | None) -> None:
        """Set the run's logs back to what they were at the checkpoint; without one, there are none."""
        for name in self.logs:
            source = checkpoint.path / name if checkpoint is not None else None
            if source is not None and source.exists():
                write_bytes(self.run_dir / name, source.read_bytes())
            else:
                with disk_errors(self.run_dir / name):
                    (self.run_dir / name).unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove what a finished run needs no more: every checkpoint unless all are kept, and partial ones."""
        folder = self.run_dir / CHECKPOINTS
        if not self.keep_all:
            remove(folder)
        elif folder.is_dir():
            for entry in folder.glob("*" + PARTIAL):
                remove(entry)


def remove(path: Path) -> None:
    """Remove a directory, if it is there; of a link to one the link alone."""
    with disk_errors(path):
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def _is_inside(path: Path, name: str) -> bool:
    """Whether a name is that of a regular file in the directory, not of one elsewhere that a link leads to."""
    file = path / name
    return Path(name).name == name and file.is_file() and file.resolve().parent == path.resolve()


def _check_state(path: Path, step: int, state: Any) -> None:
    """Raise InputError unless the engine's values and the Trainer's counters are of the kinds that were written."""
    kinds = {
        "running_loss": (int, float),
        "last_logged": int,
        "seconds": (int, float),
        "groups": list,
        "schedule": dict,
    }
    if not isinstance(state, dict) or state.keys() != kinds.keys():
        raise InputError(f"{path}: {CHECKPOINT} has no state of a run: {instead(path)}")
    for name, kind in kinds.items():
        if not isinstance(state[name], kind) or isinstance(state[name], bool):  # type: ignore[arg-type]
            raise InputError(f"{path}: {CHECKPOINT} has {name} {short(state[name])} in its state: {instead(path)}")
    counters = read_json(path / TRAINER_STATE, RECORD_LIMIT)
    if not isinstance(counters, dict) or counters.get("global_step") != step:
        raise InputError(f"{path / TRAINER_STATE} is not that of step {step}: {instead(path)}")


def instead(path: Path) -> str:
    """Return what to do about a checkpoint that is refused."""
    return f"remove {path.name} to go on from the checkpoint before it, or start again with --overwrite"


def _difference(found: Any, expected: Any) -> str:
    """Return the first entry in which two records differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            if found.get(key) != expected.get(key):
                return f"{key} {short(found.get(key))}, not {short(expected.get(key))}"
    return f"{short(found)}, not {short(expected)}"
