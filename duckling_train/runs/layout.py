"""A run's directory: where it is, what is in it, and whether it is what the run wrote.

Files are written beside their path and renamed; only the logs grow in place, to be watched. The manifest comes last: a
run directory without one is a run that did not finish, and resumes from its newest checkpoint.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError

from duckling_data.base.command_line import USERS_FAULT
from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import (
    PARTIAL,
    flush,
    refuse_linked,
    remove,
    replace_directory,
    sync_directory,
)
from duckling_data.base.progress import SILENT, Reporter
from duckling_data.base.records import FileRecord, added, describe, file_faults, first_fault, plain, read_record, short
from duckling_data.base.strict_json import write_json
from duckling_train.config import flag, given, named

FORMAT_VERSION = 1
"""The version of a run directory's layout and of the files in it."""
AGAIN = "train the run again with duckling-train --overwrite"
RUNS = "runs"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
DYNAMICS = "dynamics.jsonl"
EVALUATIONS = "evaluation.jsonl"
CHECKPOINTS = "checkpoints"
SUMMARY = "summary.json"
PLOT = "loss.png"
MODEL = "model"
WEIGHTS = "model.safetensors"
SAMPLES = "samples.txt"
RECORD = "record.zarr"
MEASURES, MEASURED_ROWS = "measures.parquet", "rows.parquet"
REPORT = "report.html"
PLOTS = "plots"
MANIFEST = "manifest.json"
MODEL_CARD = "README.md"
HOW_TO_OPEN = b"""# A model of Duckling

Its tokenizer is that of `duckling_data`, which must be imported before this folder is opened:

```python
from duckling_data import DucklingTokenizer
from transformers import AutoModelForCausalLM

folder = "."  # this folder
tokenizer, model = DucklingTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```

With that import, `AutoTokenizer` and `pipeline` open it, too.
"""
TENSORBOARD = "tensorboard"


def whole_files(run_dir: Path, name: str) -> dict[str, FileRecord]:
    """Return the record of a file, or of each file in a folder, by its path in the run; empty where there is none."""
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
    """How the manifest records it: by reading it, or from digests kept while it was written. None: not listed there."""
    log: bool = False
    """Whether it grows while a run trains, and is set back where a run resumes from a checkpoint."""


ARTIFACTS = (
    Artifact(CONFIG, "runs.train, before the first step"),
    Artifact(METRICS, "hook MetricsWriter", log=True),
    Artifact(DYNAMICS, "hook DynamicsWriter", log=True),
    Artifact(EVALUATIONS, "hook Evaluator", log=True),
    Artifact(CHECKPOINTS, "hook CheckpointWriter", describe=None),
    Artifact(RECORD, "hook Recording, with --record"),
    Artifact(MODEL, "runs.fit, after the last step"),
    Artifact(SAMPLES, "runs.fit, after the last step"),
    Artifact(PLOT, "runs.fit, after the last step"),
    Artifact(SUMMARY, "runs.fit, after the last step"),
    # The names and bytes of TensorBoard's files hold the clock.
    Artifact(TENSORBOARD, "the Trainer, with --report-to tensorboard", describe=None),
    # Made after the manifest, and made again at will: they follow from the rest.
    Artifact(MEASURES, "duckling-train measure", describe=None),
    Artifact(MEASURED_ROWS, "duckling-train measure", describe=None),
    Artifact(REPORT, "duckling-train report", describe=None),
    Artifact(PLOTS, "duckling-train plots", describe=None),
    Artifact(MANIFEST, "runs.fit, last", describe=None),
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
    """Return a finished run's manifest, or None where the run is not finished.

    Raises InputError for a damaged one, and where its path is not a file: the run must not pass for an unfinished one.
    """
    path = run_dir / MANIFEST
    if not path.exists() and not path.is_symlink():
        return None
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path}: a link, folder or device, expected a finished run's file; put it back, or remove it")
    manifest = read_record(path, RunManifest, AGAIN)
    if manifest.format != FORMAT_VERSION:
        raise InputError(f"{path}: format {manifest.format}, expected {FORMAT_VERSION}; use the Duckling that made it")
    refuse_outside(manifest.files, path, AGAIN)
    return manifest


def refuse_outside(files: Iterable[str], record: Path, advice: str) -> None:
    """Raise InputError where a record lists a file by a path that leads out of the record's folder."""
    outside = next((name for name in files if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None:
        raise InputError(f"{record}: file {short(outside)} is not in {record.parent}; {advice}")


def damage(
    run_dir: Path, manifest: RunManifest, names: Collection[str], *, links: bool = True, reporter: Reporter = SILENT
) -> str | None:
    """Return a line that names every file of these artifacts that is not as in the manifest; None where all are.

    Where `links` is false a symbolic link differs, whatever it leads to.
    """
    expected = {name: record for name, record in manifest.files.items() if name.split("/")[0] in names}
    here = [run_dir / name for name in names]
    here += [entry for path in here if not path.is_symlink() for entry in path.rglob("*")]
    files = (path for path in here if path.is_symlink() or (path.exists() and not path.is_dir()))
    found = added((path.relative_to(run_dir).as_posix() for path in files), expected)
    with reporter.bar("verify files", sum(record.bytes for record in expected.values()), "B") as bar:
        faults = dict(file_faults(run_dir, expected, links=links, done=bar.update))
    faults |= dict.fromkeys(found, f"was added: {MANIFEST} does not list it")
    return first_fault(run_dir, faults) if faults else None


def locate(workspace: Path, out: Path | None, name: str, folder: str = RUNS) -> Path:
    """Return a run's directory: `out`, or `folder/name` in the workspace.

    Raises InputError for a name with a path, and as `refuse_linked` does.
    """
    if out is not None:
        return out
    if Path(name).name != name or name in ("", ".", ".."):
        path = " (--out takes a path)" if named("run") == flag("run") else ""
        raise InputError(f"{named('run')} is {name!r}; it must be one file name{path}")
    refuse_linked(workspace, f"{folder}/{name}")
    return workspace / folder / name


def refusal(run_dir: Path, *, overwrite: bool) -> str | None:
    """Return why a run may not be written to `run_dir`, or None where it may: nothing there, or a run to overwrite."""
    another = f"give another {named('run')}" + (" or --out" if named("run") == flag("run") else "")
    if not run_dir.is_dir():
        present = run_dir.is_symlink() or run_dir.exists()
        return f"{run_dir} is not a directory: {another}" if present else None
    entries = {entry.name for entry in run_dir.iterdir()} - {CONFIG + PARTIAL}  # of a run killed before its start
    if entries and CONFIG not in entries:
        return f"{run_dir} exists and is not a run (no {CONFIG}): {another}"
    if not entries or overwrite:
        return None
    if MANIFEST in entries:
        return f"{run_dir} already holds a run: {another}, or {given('overwrite', True)}"
    unfinished = f"duckling-train --resume {run_dir} finishes it, {given('overwrite', True)} replaces it"
    return f"{run_dir} already holds an unfinished run: {unfinished}"


def elsewhere() -> str:
    """Return what a user may do instead where the disk has no room for a run."""
    return f"choose another {'--out' if named('run') == flag('run') else 'workspace'}"


def make_folder(folder: Path, run_dir: Path) -> None:
    """Make a folder for `run_dir`. Raises InputError where no folder can be, OutsideError when the disk fails."""
    with disk_errors(folder, instead=elsewhere()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except USERS_FAULT as error:
            raise InputError(f"cannot make the run directory {run_dir}: {error.strerror}") from error


def prepare(run_dir: Path, *, overwrite: bool) -> None:
    """Make `run_dir` an empty directory, removing an earlier run's own files, the manifest first.

    Raises InputError where `refusal` has a reason, and as `make_folder` does.
    """
    if reason := refusal(run_dir, overwrite=overwrite):
        raise InputError(reason)
    make_folder(run_dir, run_dir)
    for artifact in reversed(ARTIFACTS):
        remove(run_dir / artifact.name)
        remove(run_dir / (artifact.name + PARTIAL))


def save_model(run_dir: Path, model: Any, tokenizer: Any) -> None:
    """Write `model/`: safetensors, their configuration, and the tokenizer, so that `from_pretrained` opens it."""
    from duckling_train.gpt2 import Gpt2, save_pretrained  # torch is not imported to list runs

    place = run_dir / MODEL
    partial = place.with_name(MODEL + PARTIAL)
    remove(partial)  # of a process that was killed
    with disk_errors(place, instead=elsewhere()):
        partial.mkdir(parents=True)
        try:
            if isinstance(model, Gpt2):
                save_pretrained(model, partial)
            else:
                model.save_pretrained(str(partial))
        except SafetensorError as error:  # it passes the system's error on as text
            number = re.search(r"\(os error (\d+)\)", str(error))
            text = os.strerror(int(number[1])) if number else str(error)
            raise OSError(int(number[1]) if number else None, text, str(place)) from error
        tokenizer.save_pretrained(str(partial))
        (partial / MODEL_CARD).write_bytes(HOW_TO_OPEN)
        # safetensors makes its file readable to its owner alone; the others have the user's usual mode.
        shutil.copymode(partial / CONFIG, partial / WEIGHTS)
        for path in sorted(partial.iterdir()):
            flush(path)
        sync_directory(partial)
    replace_directory(partial, place)


def write_manifest(run_dir: Path, inputs: dict[str, Any]) -> None:
    """Write `manifest.json`: bytes and SHA-256 of each file of the run, and what it was trained on (`inputs`).

    The logs are flushed first, as all else is when it is written: a power cut takes nothing that a manifest lists.
    """
    with disk_errors(run_dir, instead=elsewhere()):
        for name in LOGS:
            if (run_dir / name).is_file():
                flush(run_dir / name)
    files: dict[str, FileRecord] = {}
    for artifact in ARTIFACTS:
        files |= artifact.describe(run_dir, artifact.name) if artifact.describe is not None else {}
    write_json(run_dir / MANIFEST, {"format": FORMAT_VERSION, **inputs, "files": plain(dict(sorted(files.items())))})
