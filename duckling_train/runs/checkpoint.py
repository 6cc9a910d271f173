"""Checkpoints: everything that a run needs to resume bitwise, in `checkpoints/step-NNNNNNNN/`, whole or not there.

the engine's own files   for the reference engine weights, optimizer state and counters
metrics.jsonl, …         the run's logs up to this step
checkpoint.json          the step, the engine's values, what run it belongs to, each file's size and SHA-256
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import (
    PARTIAL,
    own_folder,
    refuse_linked,
    remove,
    replace_directory,
    sync_directory,
    write_bytes,
)
from duckling_data.base.records import FileRecord, added, decode, describe, file_faults, first_fault, plain, short
from duckling_data.base.signals import keep
from duckling_data.base.strict_json import digest_json, read_json, write_json
from duckling_train.config import CHOICES, TrainConfig
from duckling_train.engines.base import Checkpoint
from duckling_train.runs.layout import CHECKPOINTS, EVALUATIONS, LOGS, refuse_outside

CHECKPOINT = "checkpoint.json"
CONFIG_DIGEST = "config_sha256"
RECORD_DIGEST = "record_sha256"
"""The digest, in `checkpoint.json`, of all else in it."""
FORMAT_VERSION = 1
KEPT = 2
"""How many checkpoints stay while a run trains: if a disk damages the newest, there is one before it."""
NAME = "step-{:08d}"
NAME_PATTERN = re.compile(r"step-(\d{8,})")


def checkpoints_of(run_dir: Path) -> list[tuple[int, Path]]:
    """Return (step, directory) of the run's finished checkpoints, oldest first. Partial ones are not among them.

    Raises InputError where a link is in the place of their folder.
    """
    refuse_linked(run_dir, CHECKPOINTS)
    matches = ((NAME_PATTERN.fullmatch(entry.name), entry) for entry in (run_dir / CHECKPOINTS).glob("step-*"))
    return sorted((int(match[1]), entry) for match, entry in matches if match and entry.is_dir())


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the run with these settings and inputs; a checkpoint of another run is refused."""

    run_dir: Path
    config: TrainConfig
    inputs: dict[str, Any]
    again: str = ""
    """How the run is resumed, where `--resume` is not the way."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of its run."""
        return {CONFIG_DIGEST: digest_json(self.config.resolved()), "inputs": self.inputs}

    @cached_property
    def _equivalent(self) -> list[str]:
        """The digests of the settings under which a checkpoint is one of this run, too.

        Where it reports to changes no number, nor what happens where the record cannot be written. Under a constant
        schedule the number of steps changes nothing before: the run may have gone on, and then one of its checkpoints
        was the last before.
        """
        steps = {self.config.steps, *(step for step, _ in checkpoints_of(self.run_dir) if self.config.goes_on)}
        settings = (
            replace(self.config, steps=number, report_to=where, on_record_error=then)
            for number in steps
            for where in CHOICES["report_to"]
            for then in (CHOICES["on_record_error"] if self.config.record != "none" else [self.config.on_record_error])
        )
        return [digest_json(config.resolved()) for config in settings]

    def write(self, step: int, files: dict[str, bytes], state: dict[str, Any]) -> None:
        """Write the checkpoint of `step` from the engine's files and values (JSON), and remove those too old.

        Raises OutsideError when the disk fails; the checkpoints before it stay.
        """
        path = own_folder(self.run_dir, CHECKPOINTS) / NAME.format(step)
        partial = path.with_name(path.name + PARTIAL)
        logs = {name: (self.run_dir / name).read_bytes() for name in LOGS if (self.run_dir / name).exists()}
        try:
            with disk_errors(path):
                remove(partial)
                partial.mkdir()
                for name, content in (files | logs).items():
                    write_bytes(partial / name, content)
                described = {name: plain(describe(partial / name)) for name in sorted(files | logs)}
                record = {"format": FORMAT_VERSION, "step": step, **self.identity, "files": described, "state": state}
                write_json(partial / CHECKPOINT, {**record, RECORD_DIGEST: digest_json(record)})
                replace_directory(partial, path)
                sync_directory(self.run_dir)  # the first one made the folder of them all
        except BaseException:
            remove(partial)
            raise
        if not self.config.keep_checkpoints:
            for _step, old in checkpoints_of(self.run_dir)[:-KEPT]:
                remove(old)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint, checked whole, or None for none. Raises InputError as `read` does."""
        found = checkpoints_of(self.run_dir)
        return self.read(*found[-1]) if found else None

    def read(self, step: int, path: Path) -> Checkpoint:
        """Return the checkpoint in `path`. Raises InputError for a damaged one, and one of other settings or data."""
        advice = f"remove {path.name} to resume from the checkpoint before it, or start again with --overwrite"
        file = path / CHECKPOINT
        if path.is_symlink():
            raise InputError(f"{path}: a link, expected the checkpoint itself; {advice}")
        content = read_json(file, limit=1 << 20) if file.is_file() and not file.is_symlink() else None
        if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION or content.get("step") != step:
            raise InputError(f"{path}: {CHECKPOINT} is missing, a link, or not one of step {step}; {advice}")
        if content.pop(RECORD_DIGEST, None) != digest_json(content):
            raise InputError(f"{path}: {CHECKPOINT} is damaged (not its own SHA-256); {advice}")
        for name, value in self.identity.items():
            found = content.get(name)
            if found != value and not (name == CONFIG_DIGEST and found in self._equivalent):
                difference = f"{short(found)}, expected {short(value)}"
                raise InputError(f"{path} is from a run with other {name}: {difference}; {advice}")
        files = decode(content.get("files"), dict[str, FileRecord], f"{file}: files", advice)
        refuse_outside(files, file, advice)
        faults = dict(file_faults(path, files, links=False))
        here = {entry.name for entry in path.iterdir()} - {CHECKPOINT}
        faults |= dict.fromkeys(added(here, files), f"was added: {CHECKPOINT} does not list it")
        if faults:
            raise InputError(f"{first_fault(path, faults)}; {advice}")
        return Checkpoint(path, step, decode(content.get("state"), dict[str, Any], str(path), advice))

    def restore_logs(self, checkpoint: Checkpoint | None) -> None:
        """Set the run's logs back to what they were at the checkpoint; without one, there are none.

        An evaluation after the last step of a shorter run is left out: a longer one makes none there.
        """
        for name in LOGS:
            if checkpoint is not None and (checkpoint.path / name).exists():
                content = (checkpoint.path / name).read_bytes()
                if name == EVALUATIONS and not self.config.is_due(checkpoint.step, self.config.eval_steps):
                    lines = content.splitlines(keepends=True)
                    content = b"".join(line for line in lines if json.loads(line)["step"] != checkpoint.step)
                write_bytes(self.run_dir / name, content)
            else:
                remove(self.run_dir / name)

    def finish(self) -> None:
        """Remove what a finished run needs no more: partial ones, and every checkpoint unless all are kept.

        The last one stays where the run can go on from it.
        """
        refuse_linked(self.run_dir, CHECKPOINTS)
        folder, last = self.run_dir / CHECKPOINTS, NAME.format(self.config.steps)
        stays = {last} if self.config.goes_on and (folder / last).is_dir() else set()
        if self.config.keep_checkpoints:
            stays = {path.name for _, path in checkpoints_of(self.run_dir)}
        for entry in list(folder.glob("*")) if stays else [folder]:
            if entry.name not in stays:
                remove(entry)

    def say_kept(self, step: int = 0) -> None:
        """Have the program say, if a signal ends it, what is kept: the checkpoint of this step; 0 is none."""
        resume = self.again or shlex.join(["duckling-train", "--resume", str(self.run_dir)])
        if step:
            keep(f"the checkpoint of step {step:,} is kept: {resume} goes on from it")
        else:
            none = "--checkpoint-steps is 0" if not self.config.checkpoint_steps else "none was written yet"
            keep(f"no checkpoint is kept ({none}): {resume} starts at step 1")
