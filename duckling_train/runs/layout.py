"""A run's directory: where it is, what is in it, and when it is whole.

Files are written beside their path and renamed; only the logs grow where they are, to be watched. The manifest comes
last: a run directory without one is a run that did not finish, and resumes from its newest checkpoint.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError

from duckling_data.base.command_line import USERS_FAULT
from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL, replace_directory, sync_directory
from duckling_data.base.records import FileRecord, describe, plain, read_record, short
from duckling_data.base.strict_json import write_json

FORMAT_VERSION = 1
"""The version of a run directory's layout and of the files in it."""

RUNS = "runs"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluation.jsonl"
CHECKPOINTS = "checkpoints"
SUMMARY = "summary.json"
PLOT = "loss.png"
MODEL = "model"
WEIGHTS = "model.safetensors"
"""The file in `model/` with the parameters."""
SAMPLES = "samples.txt"
MANIFEST = "manifest.json"
TENSORBOARD = "tensorboard"


def whole_files(run_dir: Path, name: str) -> dict[str, FileRecord]:
    """Return the record of a file, or of each file in a folder, by its path in the run; empty where nothing is there.

    An artifact that is too large to be read again at the end of a run has a function of its own instead, from digests
    kept while it was written.
    """
    place = run_dir / name
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    return {path.relative_to(run_dir).as_posix(): describe(path) for path in paths if path.is_file()}


@dataclass(frozen=True)
class Artifact:
    """A file or folder of a run's directory."""

    name: str
    writer: str
    """What writes it."""
    describe: Callable[[Path, str], dict[str, FileRecord]] | None = whole_files
    """How the manifest records it; None: it is not listed there."""
    log: bool = False
    """Whether it grows while a run trains, and is set back where a run resumes from a checkpoint."""
    folder: bool = False


ARTIFACTS = (
    Artifact(CONFIG, "runs.train, before the first step"),
    Artifact(METRICS, "hook MetricsWriter", log=True),
    Artifact(EVALUATIONS, "hook Evaluator", log=True),
    Artifact(CHECKPOINTS, "hook CheckpointWriter", describe=None, folder=True),
    Artifact(MODEL, "runs.train, after the last step", folder=True),
    Artifact(SAMPLES, "runs.train, after the last step"),
    Artifact(PLOT, "runs.train, after the last step"),
    Artifact(SUMMARY, "runs.train, after the last step"),
    # The names and bytes of TensorBoard's files hold the clock.
    Artifact(TENSORBOARD, "the Trainer, with --report-to tensorboard", describe=None, folder=True),
    Artifact(MANIFEST, "runs.train, last", describe=None),
)
"""What a run writes, in this order."""
LOGS = tuple(artifact.name for artifact in ARTIFACTS if artifact.log)


class RunManifest(msgspec.Struct):
    """The content of a run's `manifest.json`."""

    format: int
    files: dict[str, FileRecord]
    """The run's files by their path in it."""
    dataset: dict[str, Any] = {}
    mapping: dict[str, Any] = {}
    validation: dict[str, Any] | None = None

    def inputs(self) -> dict[str, Any]:
        """Return what the run was trained on: digests and sizes, as `config.json` has them."""
        parts = {"dataset": self.dataset, "mapping": self.mapping, "validation": self.validation}
        return {name: part for name, part in parts.items() if part}


def read_manifest(run_dir: Path) -> RunManifest | None:
    """Return a finished run's manifest, or None where the run is not finished. Raises InputError for a damaged one."""
    if not has_manifest(run_dir):
        return None
    path = run_dir / MANIFEST
    manifest = read_record(path, RunManifest, "train the run again with --overwrite")
    if manifest.format != FORMAT_VERSION:
        raise InputError(f"{path}: format {manifest.format}, expected {FORMAT_VERSION}; use the Duckling that made it")
    outside = next((name for name in manifest.files if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None:
        raise InputError(f"{path}: file {short(outside)} is not in the run; train the run again with --overwrite")
    return manifest


def locate(workspace: Path, out: Path | None, name: str, folder: str = RUNS) -> Path:
    """Return a run's directory: `out`, or `folder/name` in the workspace. Raises InputError for a name with a path."""
    if out is not None:
        return out
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"--name is {name!r}; it must be one file name (--out takes a path)")
    return workspace / folder / name


def refusal(run_dir: Path, *, overwrite: bool) -> str | None:
    """Return why a run may not be written to `run_dir`, or None where it may: nothing there, or a run to overwrite."""
    if run_dir.is_symlink() or run_dir.exists():
        if not run_dir.is_dir():
            return f"{run_dir} is not a directory: give another --out or --name"
        entries = {entry.name for entry in run_dir.iterdir()}
        if entries and CONFIG not in entries:
            return f"{run_dir} exists and is not a run (no {CONFIG}): give another --out or --name"
        if entries and not overwrite:
            if MANIFEST in entries:
                return f"{run_dir} already holds a run: give another --name or --out, or --overwrite"
            return f"{run_dir} already holds an unfinished run: --resume {run_dir} finishes it, --overwrite replaces it"
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
        for artifact in reversed(ARTIFACTS):
            for path in (run_dir / artifact.name, run_dir / (artifact.name + PARTIAL)):
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


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """Return the system's error that safetensors passes on as text, as the error of a write to `path`."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else OSError(str(error))


def _flush(path: Path) -> None:
    """Flush a file that a library, or an open log, has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def has_manifest(run_dir: Path) -> bool:
    """Whether the run is finished: its manifest, which comes last, is there.

    Raises InputError where the manifest's path is not a file: a finished run must not pass for an unfinished one.
    """
    path = run_dir / MANIFEST
    if path.is_symlink() or (path.exists() and not path.is_file()):
        kind = "a link" if path.is_symlink() else "a directory" if path.is_dir() else "a pipe or device"
        raise InputError(f"{path} is {kind}, expected the file that a finished run writes: put it back, or remove it")
    return path.exists()


def write_manifest(run_dir: Path, inputs: dict[str, Any]) -> None:
    """Write `manifest.json`: bytes and SHA-256 of each file of the run, and what it was trained on (`inputs`).

    The logs are flushed before: all else was when it was written, and a manifest never lists what a power cut may take.
    """
    with disk_errors(run_dir):
        for name in LOGS:
            if (run_dir / name).is_file():
                _flush(run_dir / name)
    files: dict[str, FileRecord] = {}
    for artifact in ARTIFACTS:
        files |= artifact.describe(run_dir, artifact.name) if artifact.describe is not None else {}
    write_json(run_dir / MANIFEST, {"format": FORMAT_VERSION, **inputs, "files": plain(dict(sorted(files.items())))})
