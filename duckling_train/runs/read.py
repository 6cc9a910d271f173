"""Run directories as they are read: found by path or name, and their records opened, finished or still growing.

A finished run's files are the ones that it wrote, by the SHA-256 in its manifest, or they are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes, refuse_linked
from duckling_data.base.records import decode, read_record, short
from duckling_data.base.strict_json import parse_json
from duckling_train.runs import layout
from duckling_train.runs.layout import AGAIN, CONFIG, DYNAMICS, EVALUATIONS, METRICS, RUNS, SUMMARY, RunManifest
from duckling_train.settings import FIELDS, INPUTS, check_type

NAMES_SHOWN = 8
LOG_LIMIT = 128 << 20
"""The largest log that is read, in bytes: some 300,000 lines of the longest."""
FIGURES = (
    "steps",
    "parameters",
    "first_loss",
    "last_loss",
    "last_logged_step",
    "steps_per_second",
    "tokens_per_second",
)
"""The numbers of a `summary.json` that are shown; another version's may lack some."""


class _Line(msgspec.Struct):
    step: int
    loss: float


class _DynamicsLine(msgspec.Struct):
    step: int
    centroid_norm: float | None = None
    centroid_moved: float | None = None
    radius_mean: float | None = None
    radius_max: float | None = None
    velocity: float | None = None
    coherence: float | None = None
    displacement_dead: float | None = None
    displacement_live: float | None = None
    dead_mass: float | None = None
    isotropy: float | None = None
    mean_shift: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says about its run."""

    name: str
    """The directory's name."""
    settings: dict[str, Any]
    """`config.json` without its inputs."""
    inputs: dict[str, Any]
    """What it was trained on: digests of dataset and mapping. Empty where the run does not say."""
    steps: list[int]
    """The steps at which a loss was logged, rising."""
    losses: list[float]
    """The logged losses (nats a token), each the mean since the log before."""
    evaluations: list[dict[str, Any]]
    """The lines of `evaluation.jsonl`: step, loss, perplexity, loss_known, rows. Empty where nothing was evaluated."""
    summary: dict[str, Any] | None
    """`summary.json`, or None where the run has not come that far."""
    finished: bool
    """Whether the manifest, which comes last, is there."""
    dynamics: list[dict[str, Any]] = field(default_factory=list, kw_only=True)
    """The lines of `dynamics.jsonl`, as `recording/light.py` describes them. Empty where an earlier version trained."""

    @property
    def last_dynamics(self) -> dict[str, Any] | None:
        """The last of these lines, with the last `isotropy` of them all; None where there are none."""
        if not self.dynamics:
            return None
        known = [line["isotropy"] for line in self.dynamics if line.get("isotropy") is not None]
        return {**self.dynamics[-1], "isotropy": known[-1] if known else None}


def find_run(workspace: Path, run: str, *, links: bool = True) -> Path:
    """Return the directory of `run`: a run of that name in the workspace, else the path of a run's directory.

    A run is known by its `config.json`, one that lost it by its `summary.json`. Raises InputError where neither is and,
    unless `links`, for a run of that name in the workspace that is a link or is behind one: nothing may be written.
    """
    named = [workspace / RUNS / run] if Path(run).name == run else []
    for folder in (*named, Path(run)) if run else ():
        if (folder / CONFIG).is_file() or (folder / SUMMARY).is_file():
            if folder in named and not links:
                refuse_linked(workspace, f"{RUNS}/{run}")
            return folder
    names = sorted(path.parent.name for path in (workspace / RUNS).glob(f"*/{CONFIG}"))
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    known = ", ".join(names[:NAMES_SHOWN]) + more or "none"
    raise InputError(f"no run {run!r}: neither a run's directory nor one of {workspace / RUNS} (which holds {known})")


def read_run(path: Path) -> RunRecord:
    """Return the record of the run in directory `path`.

    The last line of a run that is not finished may be half written, and is then left out. Raises InputError for any
    other damage, with the file and the line, and for a file of a finished run that is not the one that it wrote.
    """
    manifest = layout.read_manifest(path)
    check_written(path, manifest, (CONFIG, METRICS, DYNAMICS, EVALUATIONS, SUMMARY))
    settings = read_record(path / CONFIG, dict[str, Any], AGAIN)
    inputs = settings.pop(INPUTS, None)
    if not isinstance(inputs, dict | None):
        raise InputError(f"{path / CONFIG}: {INPUTS} is {short(inputs)}; expected an object of digests")
    for name, value in settings.items():
        if name in FIELDS:
            check_type(path / CONFIG, name, value)
        elif isinstance(value, dict | list):
            raise InputError(f"{path / CONFIG}: {name} is {short(value)}; expected a single value")
    torn = manifest is None
    metrics = _read_lines(path / METRICS, torn=torn)
    summary = read_record(path / SUMMARY, dict[str, Any], AGAIN) if (path / SUMMARY).exists() else None
    figures = {name: (summary or {}).get(name) for name in FIGURES}
    decode(figures, dict[str, float | None], str(path / SUMMARY), AGAIN)
    decode({"dynamics": (summary or {}).get("dynamics")}, dict[str, _DynamicsLine | None], str(path / SUMMARY), AGAIN)
    return RunRecord(
        name=path.resolve().name, settings=settings, inputs=inputs or {}, steps=[line["step"] for line in metrics],
        losses=[line["loss"] for line in metrics], evaluations=_read_lines(path / EVALUATIONS, torn=torn),
        summary=summary, finished=not torn, dynamics=_read_lines(path / DYNAMICS, _DynamicsLine, torn=torn),
    )  # fmt: skip


def dataset_digest(record: RunRecord) -> str | None:
    """Return the payload digest of the dataset that a run was trained on, or None where it does not say."""
    dataset = record.inputs.get("dataset")
    known = dataset.get("payload_sha256") if isinstance(dataset, dict) else None
    digest = known or (record.summary or {}).get("dataset_payload_sha256")
    return str(digest) if digest else None


def same_data(records: Sequence[RunRecord]) -> bool:
    """Return whether all runs were trained on one dataset. One that does not say counts as another."""
    return len({dataset_digest(record) for record in records}) == 1


def check_written(run_dir: Path, manifest: RunManifest | None, names: Sequence[str]) -> None:
    """Raise InputError where files of a finished run are not the ones that it wrote."""
    fault = layout.damage(run_dir, manifest, names) if manifest is not None else None
    if fault is not None:
        raise InputError(f"{fault}; duckling-train verify {run_dir} checks the whole run")


def _read_lines(path: Path, kind: type[Any] = _Line, *, torn: bool) -> list[dict[str, Any]]:
    """Return a log's lines, each an object of this kind at a rising step; none where there is no file.

    Where it may be `torn`, a last line without a line break is left out.
    """
    try:
        *lines, rest = read_bytes(path, LOG_LIMIT).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    read: list[dict[str, Any]] = []
    for number, line in enumerate([*lines, rest] if rest and not torn else lines, 1):
        try:
            entry = parse_json(line)
            msgspec.convert(entry, kind, strict=True)
            if read and entry["step"] <= read[-1]["step"]:
                raise ValueError("the step is not above the one before")
        except ValueError as error:  # of which msgspec's ValidationError is one
            what = "a loss" if kind is _Line else "numbers or null"
            raise InputError(
                f"{path}, line {number}: damaged; expected an object with {what} at a rising step"
            ) from error
        read.append(entry)
    return read
