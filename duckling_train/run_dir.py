"""A run's directory: where it is, what is in it, and when it is whole.

Files are written beside their place and renamed; only the logs grow in their place, to be watched. The manifest comes
last: a run directory without one is a run that did not finish, and goes on from its newest checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from duckling_data.errors import InputError, OutsideError
from duckling_data.files import PARTIAL, disk_errors, replace_directory, write_json
from duckling_data.manifest import describe_output
from duckling_train.checkpoint import CHECKPOINTS

FORMAT_VERSION = 1
"""The version of a run directory's layout and of the files in it."""

RUNS = "runs"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluation.jsonl"
SUMMARY = "summary.json"
PLOT = "loss.png"
MODEL = "model"
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


def prepare(run_dir: Path, *, overwrite: bool) -> None:
    """Make `run_dir` an empty directory, removing an earlier run's own files, the manifest first.

    Raises InputError where `refusal` has a reason, or where the directory cannot be made.
    """
    reason = refusal(run_dir, overwrite=overwrite)
    if reason:
        raise InputError(reason)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the run directory {run_dir}: {error.strerror}") from error
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
        try:
            model.save_pretrained(str(partial))
        except SafetensorError as error:
            raise OutsideError(f"{place}: cannot be written ({error})") from error
        tokenizer.save_pretrained(str(partial))
        # safetensors makes its file readable to its owner alone; the others have the user's usual mode.
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
    replace_directory(partial, place)


def files_of(run_dir: Path) -> Iterator[Path]:
    """Yield the paths of the run's files, relative to `run_dir`, sorted, the manifest apart."""
    for path in sorted(run_dir.rglob("*")):
        relative = path.relative_to(run_dir)
        if path.is_file() and relative.parts[0] in RECORDED:
            yield relative


def write_manifest(run_dir: Path, inputs: dict[str, Any]) -> None:
    """Write `manifest.json`: bytes and SHA-256 of each file of the run, and what it was trained on (`inputs`)."""
    files = {path.as_posix(): describe_output(run_dir / path) for path in files_of(run_dir)}
    write_json(run_dir / MANIFEST, {"format": FORMAT_VERSION, **inputs, "files": files})
