"""A run's directory: where it is, what is in it, and when it is whole.

Files are written beside their place and renamed; only the logs grow in their place, to be watched. The manifest comes
last: a run directory without one is a run that did not finish, and goes on from its newest checkpoint.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from duckling_data.base.command_line import USERS_FAULT
from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL, replace_directory, sync_directory
from duckling_data.base.strict_json import write_json
from duckling_data.workspace.manifest import describe_output
from duckling_train.runs.checkpoint import CHECKPOINTS

FORMAT_VERSION = 1
"""The version of a run directory's layout and of the files in it."""

RUNS = "runs"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluation.jsonl"
SUMMARY = "summary.json"
PLOT = "loss.png"
MODEL = "model"
WEIGHTS = "model.safetensors"
"""The file in `model/` with the parameters."""
SAMPLES = "samples.txt"
MANIFEST = "manifest.json"
LOGS = (METRICS, EVALUATIONS)
"""What grows while a run trains, and is set back where it goes on from a checkpoint."""
CONTENTS = (CONFIG, *LOGS, CHECKPOINTS, MODEL, SAMPLES, PLOT, SUMMARY, MANIFEST)
"""What a run writes, in this order."""
RECORDED = tuple(name for name in CONTENTS if name not in (CHECKPOINTS, MANIFEST))
"""What the manifest lists: all but itself and the checkpoints, which are there to go on from."""
TENSORBOARD = "tensorboard"
"""TensorBoard's events, whose names and bytes hold the clock."""


def locate(workspace: Path, out: Path | None, name: str) -> Path:
    """Return the run's directory: `out`, or `runs/name` in the workspace. Raises InputError for a name with a path."""
    if out is not None:
        return out
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"--name is {name!r}; it must be one file name (--out takes a path)")
    return workspace / RUNS / name


def refusal(run_dir: Path, *, overwrite: bool) -> str | None:
    """Return why a run may not be written to `run_dir`, or None where it may: nothing there, or a run to overwrite."""
    if run_dir.is_symlink() or run_dir.exists():
        if not run_dir.is_dir():
            return f"{run_dir} is not a directory: give --out or --name another place"
        entries = {entry.name for entry in run_dir.iterdir()}
        if entries and CONFIG not in entries:
            return f"{run_dir} exists and is not a run (no {CONFIG}): give --out or --name another place"
        if entries and not overwrite:
            if MANIFEST in entries:
                return f"{run_dir} already holds a run: give --name or --out another place, or --overwrite"
            return f"{run_dir} already holds an unfinished run: give --resume {run_dir} to go on, or --overwrite"
    return None


def make_folder(folder: Path, run_dir: Path) -> None:
    """Make a folder that `run_dir` needs, and those above it.

    Raises InputError where no folder can be, OutsideError when the disk fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except USERS_FAULT as error:
        raise InputError(f"cannot make the run directory {run_dir}: {error.strerror}") from error
    except OSError:
        with disk_errors(folder, instead="choose another --out"):
            raise


def prepare(run_dir: Path, *, overwrite: bool) -> None:
    """Make `run_dir` an empty directory, removing an earlier run's own files, the manifest first.

    Raises InputError where `refusal` has a reason, and as `make_folder` does.
    """
    reason = refusal(run_dir, overwrite=overwrite)
    if reason:
        raise InputError(reason)
    make_folder(run_dir, run_dir)
    with disk_errors(run_dir):
        for name in (TENSORBOARD, *reversed(CONTENTS)):
            for path in (run_dir / name, run_dir / (name + PARTIAL)):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


def save_model(run_dir: Path, model: Any, tokenizer: Any) -> None:
    """Write `model/`: safetensors, their configuration, and the tokenizer, so that `from_pretrained` opens it."""
    place = run_dir / MODEL
    partial = place.with_name(MODEL + PARTIAL)
    with disk_errors(place):
        if partial.exists():  # of a process that was killed
            shutil.rmtree(partial)
        try:
            model.save_pretrained(str(partial))
        except SafetensorError as error:
            raise _as_os_error(error, place) from error
        tokenizer.save_pretrained(str(partial))
        # safetensors makes its file readable to its owner alone; the others have the user's usual mode.
        shutil.copymode(partial / CONFIG, partial / WEIGHTS)
        for path in sorted(partial.iterdir()):
            _flush(path)
        sync_directory(partial)
    replace_directory(partial, place)


def _as_os_error(error: SafetensorError, place: Path) -> OSError:
    """Return what the system said to safetensors, which passes it on as text, as the error of a write to `place`."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(place)) if number else OSError(str(error))


def _flush(path: Path) -> None:
    """Flush a file that a library, or an open log, has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def has_manifest(run_dir: Path) -> bool:
    """Whether the run is finished: its manifest, which comes last, is there.

    Raises InputError where something else stands in the manifest's place: a run is not to pass for an unfinished one.
    """
    path = run_dir / MANIFEST
    if path.is_symlink() or (path.exists() and not path.is_file()):
        kind = "a link" if path.is_symlink() else "a directory" if path.is_dir() else "a pipe or device"
        raise InputError(f"{path} is {kind}, expected the file that a finished run writes: put it back, or remove it")
    return path.exists()


def files_of(run_dir: Path) -> Iterator[Path]:
    """Yield the paths of the run's files, relative to `run_dir`, sorted, the manifest apart."""
    for path in sorted(run_dir.rglob("*")):
        relative = path.relative_to(run_dir)
        if path.is_file() and relative.parts[0] in RECORDED:
            yield relative


def write_manifest(run_dir: Path, inputs: dict[str, Any]) -> None:
    """Write `manifest.json`: bytes and SHA-256 of each file of the run, and what it was trained on (`inputs`).

    The logs are flushed before: all else was when it was written, and a manifest never lists what a power cut may take.
    """
    with disk_errors(run_dir):
        for name in LOGS:
            if (run_dir / name).is_file():
                _flush(run_dir / name)
    files = {path.as_posix(): describe_output(run_dir / path) for path in files_of(run_dir)}
    write_json(run_dir / MANIFEST, {"format": FORMAT_VERSION, **inputs, "files": files})
