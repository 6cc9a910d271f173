"""`duckling-train --resume RUN`: an interrupted run continues from its newest checkpoint, bitwise as if uninterrupted.

Settings are those in the run's `config.json`, but for where it reports to, and, under a constant schedule, more steps:
such a run goes on after its end as one that was longer from the start. The logs are set back to the checkpoint's copies
first: a step is never logged twice and none is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.files import refuse_linked, remove
from duckling_data.base.progress import Reporter
from duckling_data.base.records import read_record
from duckling_data.base.strict_json import write_json
from duckling_train.config import TrainConfig, named
from duckling_train.data import DATASET
from duckling_train.engines import load_engine
from duckling_train.model import resolve_device
from duckling_train.processes import is_main_process, process_count
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import Checkpoints, checkpoints_of
from duckling_train.runs.fit import run
from duckling_train.runs.prepared import check_reporter, prepare, proven
from duckling_train.runs.read import check_written, read_run
from duckling_train.runs.train import alone
from duckling_train.settings import INPUTS, read_settings


def resume(run_dir: Path, workspace: Path, given: Mapping[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Finish the run in `run_dir`. Returns its summary, at once where it is finished already.

    Of the `given` settings `report_to` and `on_record_error` may be other than the run's, and `steps` may be more where
    the schedule is constant: the run then goes on from its last checkpoint, and ends bitwise as one of so many steps.

    Raises InputError where `run_dir` is no run, where other settings or the workspace's data are not the run's, where
    the number of processes or the device is another, where another process trains in it, and for a damaged or foreign
    newest checkpoint.
    """
    before, _inputs = read_config(run_dir)
    with alone(run_dir):
        before, inputs = read_config(run_dir)
        config = _changed(run_dir, before, given)
        checkpoints = Checkpoints(run_dir, before, inputs)
        manifest = layout.read_manifest(run_dir)
        check_written(run_dir, manifest, (layout.CONFIG,))
        if manifest is not None and config.steps == before.steps:
            if is_main_process():  # it may have been killed right after it wrote the manifest
                checkpoints.finish()
            if (summary := read_run(run_dir).summary) is None:
                raise InputError(f"{run_dir / layout.SUMMARY} is missing: {layout.AGAIN}")
            return summary
        checkpoints.say_kept(max((step for step, _ in checkpoints_of(run_dir)), default=0))
        if process_count() != config.processes:
            module = shlex.join(["-m", "duckling_train", "--resume", str(run_dir)])
            launcher = f"torchrun --nproc-per-node {config.processes}" if config.processes > 1 else "python"
            raise InputError(
                f"{run_dir} was started with {config.processes} processes, not {process_count()}: {launcher} {module}"
            )
        check_reporter(config)
        refuse_linked(run_dir, layout.TENSORBOARD)
        resolve_device(config.device)
        try:
            config = load_engine(config.engine).checked(config)
        except InputError as error:
            reason = str(error).rpartition(": ")[0]
            advice = "go on with it where it was started" if config.report_to == before.report_to else "leave it out"
            raise InputError(f"{run_dir} trains on the engine {config.engine}; {reason}: {advice}") from error
        prepared = prepare(config, workspace, run_dir, quiet=quiet)
        if other := first_difference(inputs, prepared.inputs):
            raise InputError(
                f"{run_dir} was started on another {other} than {workspace} holds: "
                "give the run's own -w/--workspace, or start another run"
            )
        start = checkpoints.newest()
        if config.steps > before.steps and (start is None or start.step < before.steps):
            raise InputError(_why_it_ends(run_dir, before))
        proven(prepared, asked=config.engine)
        where = f"from the checkpoint of step {start.step:,}" if start else "from step 1, as it has no checkpoint"
        Reporter(prepared.quiet).say(f"{run_dir}: resumed {where}")
        if is_main_process():
            if config != before:
                _write_changed(run_dir, config, inputs, longer=config.steps > before.steps)
            prepared.checkpoints().restore_logs(start)
        return run(prepared, start)


def _changed(run_dir: Path, config: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """Return the run's config with those of the `given` settings that may change. Raises InputError for another."""
    changed = {name: value for name, value in given.items() if value != getattr(config, name)}
    if changed.get("device") == "auto":
        del changed["device"]
    for name, value in changed.items():
        if name in ("report_to", "on_record_error") or (name == "steps" and config.goes_on and value > config.steps):
            continue
        reason, advice = "a run keeps its settings", "leave the option out, or start another run"
        if name == "steps" and config.goes_on:
            reason = "a run gets no shorter"
        elif name == "steps":
            reason = f"the {config.schedule} schedule stretches the learning rate over them, from the first step on"
            advice = "start another run, or one that can go on, with --schedule constant"
        raise InputError(f"{named(name)} is {value}, but {run_dir} was started with {getattr(config, name)}, and "
                         f"{reason}: {advice}")  # fmt: skip
    return replace(config, **changed)


def _why_it_ends(run_dir: Path, config: TrainConfig) -> str:
    """Return why a run does not go on to more steps now."""
    if layout.read_manifest(run_dir) is None:
        return f"{run_dir} is not finished: --resume it without --steps first, then with more"
    return (
        f"{run_dir} has no checkpoint of its last step, {config.steps:,}, to go on from (--checkpoint-steps 0 writes "
        "none, and earlier versions kept none): start another run"
    )


def _write_changed(run_dir: Path, config: TrainConfig, inputs: dict[str, Any], *, longer: bool) -> None:
    """Write the run's settings anew. Of a run that goes on, what it made at its end is removed first."""
    # The manifest comes first: without it, the run resumes from its last checkpoint, whatever else is there.
    ends = layout.MANIFEST, layout.SUMMARY, layout.PLOT, layout.SAMPLES, layout.MODEL
    for name in (*ends, layout.MEASURES, layout.MEASURED_ROWS, layout.REPORT, layout.PLOTS) if longer else ():
        remove(run_dir / name)
    write_json(run_dir / layout.CONFIG, {**config.resolved(), INPUTS: inputs})


def read_config(run_dir: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the config of a run directory and the digests of the data it was started on."""
    path = run_dir / layout.CONFIG
    if not path.is_file():
        raise InputError(f"{run_dir} holds no {layout.CONFIG}: no run was started there; leave --resume out")
    inputs = read_record(path, dict[str, Any], layout.AGAIN).get(INPUTS)
    if not isinstance(inputs, dict):
        raise InputError(f"{path} does not say what data the run is on (no {INPUTS!r}); {layout.AGAIN}")
    return TrainConfig(**read_settings(path)), inputs


def first_difference(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Return the name of the first of a run's inputs that is another, or None."""
    return next((name for name in expected | found if found.get(name) != expected.get(name)), None)


def workspace_of(run_dir: Path, otherwise: Path) -> Path:
    """Return the workspace that holds `run_dir` as `runs/NAME`, where it has a dataset; else `otherwise`."""
    around = run_dir.resolve().parents
    return next((place for place in around if (place / DATASET).is_dir()), otherwise)
