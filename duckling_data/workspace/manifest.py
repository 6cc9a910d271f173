"""The workspace's memory: what each stage made, from what, with which settings. What is not in it does not exist.

`manifest.json` holds no clock, host, path or worker count: equal inputs and settings give equal manifests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.records import Count, FileRecord, changed, decode, describe, file_faults, plain, short
from duckling_data.base.strict_json import read_json, write_json

FORMAT_VERSION = 1
"""The version of the workspace's layout and of the files in it."""

MANIFEST_NAME = "manifest.json"

LONGEST_PATH = 200
"""Bytes of an output's path in the workspace, at most; every file system takes such a name."""

REMOVE = "remove manifest.json, the next command makes the stages again"
"""What to do about a manifest that cannot be read."""

F = TypeVar("F", bound=msgspec.Struct)


class StoryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source file, without its folder on this machine."""

    name: str
    """Relative to the folder given, or to the hub's repository."""
    bytes: Count
    sha256: str
    stories: Count


class SplitRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A split of the source: of files, or of the demo generator."""

    stories: Count
    generator: str | None = None
    """A hash that changes when the generator does."""
    text_field: str | None = None
    """The column or field that holds a story."""
    files: tuple[StoryFile, ...] = ()


class CorpusRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest keeps of the source of the stories."""

    source: str
    """`tinystories`, `demo` or `files`."""
    splits: dict[str, SplitRecord]


class StageRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What one stage made."""

    settings: dict[str, Any]
    """The stage's settings, resolved."""
    inputs: dict[str, str]
    """The digest of everything that the stage read, by name."""
    outputs: dict[str, FileRecord]
    """Each file made, by its path inside the workspace. None: the stage was interrupted."""
    figures: dict[str, Any]
    """What was measured on the way: counts, rates, content digests. `Manifest.figures` returns them typed."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as the manifest holds it."""
        fields: dict[str, Any] = plain(self)
        return fields | {"outputs": dict(sorted(fields["outputs"].items()))}


class _Contents(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    corpus: CorpusRecord | None
    stages: dict[str, dict[str, Any]]


class Manifest:
    """A workspace's `manifest.json`, read once and written after each stage.

    Raises InputError for one that cannot be read or that no stage writes.
    """

    def __init__(self, workspace: Path, order: Sequence[str] = ()) -> None:
        """`order` are the names of the stages in the order that they are written in; others follow."""
        self.workspace = workspace
        self.path = workspace / MANIFEST_NAME
        self.corpus: CorpusRecord | None = None
        """The source that the stages were made from, once there is one."""
        self.stages: dict[str, StageRecord] = {}
        self._order = {name: number for number, name in enumerate(order)}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        data = read_json(self.path)
        version = data.get("format") if isinstance(data, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            raise InputError(
                f"{self.path}: workspace format {short(version)}; expected {FORMAT_VERSION}; "
                "use another --workspace, or the Duckling that made this one."
            )
        contents = decode(data, _Contents, str(self.path), REMOVE)
        self.corpus = contents.corpus
        for name, stage in contents.stages.items():
            self.stages[name] = decode(stage, StageRecord, f"{self.path}: stage {short(name)}", REMOVE)
            for output in self.stages[name].outputs:
                self._check_inside(output)

    def _check_inside(self, name: str) -> None:
        """Raise InputError for an output whose path leads out of the workspace.

        The first part of its name may be a link: data moved to a larger disk. No part below may lead out of where that
        leads.
        """
        path = PurePosixPath(name)
        inside = name == path.as_posix() and path.parts and not path.is_absolute() and not set(path.parts) & {"..", "."}
        inside = inside and len(name.encode()) <= LONGEST_PATH
        if inside and "\\" not in name and "\0" not in name and ":" not in path.parts[0]:
            top = self.workspace / path.parts[0]
            if len(path.parts) == 1 or (self.workspace / name).resolve().is_relative_to(top.resolve()):
                return
        raise InputError(f"{self.path}: the output {short(name)} is no path inside the workspace; {REMOVE}")

    def write(self) -> None:
        """Write the manifest in one piece."""
        names = sorted(self.stages, key=lambda name: self._order.get(name, len(self._order)))
        stages = {name: self.stages[name].to_json() for name in names}
        write_json(self.path, {"format": FORMAT_VERSION, "corpus": plain(self.corpus), "stages": stages})

    def begin(self, stage: str) -> None:
        """Blank a stage's entry before its outputs are replaced: a crash in between must not leave a false one.

        The blank entry still says that the stage's outputs are this workspace's own, and remembers their settings.
        """
        before = self.stages.get(stage)
        self.stages[stage] = StageRecord(before.settings if before else {}, {}, {}, {})
        self.write()

    def enter(self, stage: str, record: StageRecord) -> None:
        """Enter a stage whose outputs are in place."""
        self.stages[stage] = record
        self.write()

    def made(self, stage: str) -> StageRecord | None:
        """Return the record of a stage that was made and not interrupted, or None."""
        record = self.stages.get(stage)
        return record if record and record.outputs else None

    def figures(self, stage: str, kind: type[F]) -> F | None:
        """Return the figures of a stage, or None where it is not made. Raises InputError for others than `kind` has."""
        record = self.made(stage)
        return decode(record.figures, kind, f"{self.path}: stage {stage}, figures", REMOVE) if record else None

    def stale(self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str | None:
        """Return why the stage must run again, in a few words, or None if what it made still holds."""
        record = self.stages.get(stage)
        if record is None:
            return "not made yet"
        if not record.outputs:
            return "it was interrupted"
        for name, value in settings.items():
            if record.settings.get(name) != value:
                return f"{name} changed from {record.settings.get(name)} to {value}"
        for name in changed(record.inputs, inputs):
            return f"{name} changed"
        for name, fault in file_faults(self.workspace, record.outputs, content=False):
            return f"{name} {fault}"
        return None

    def refuse_changed(self, stage: str, output: str) -> None:
        """Raise CheckFailed if an output of the stage, a file or a directory, is not as the stage made it.

        What the manifest has no record of is accepted.
        """
        record = self.stages.get(stage)
        recorded = record.outputs.items() if record else ()
        expected = {name: made for name, made in recorded if name == output or name.startswith(f"{output}/")}
        for name, fault in file_faults(self.workspace, expected):
            raise CheckFailed(
                f"{self.workspace / name}: {fault}, as `duckling-data {stage}` made it; `duckling-data verify` lists "
                f"what is damaged; remove {output} and run `duckling-data {stage}` to make it again."
            )


def describe_output(path: Path) -> dict[str, Any]:
    """Return `{"bytes", "sha256"}` of a file. The trainer's records use it; others use `records.describe`."""
    fields: dict[str, Any] = plain(describe(path))
    return fields
