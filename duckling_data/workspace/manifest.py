"""The workspace's memory: what each stage made, from what, with which settings. What is not in it does not exist.

`manifest.json` holds no clock, host, path or worker count: equal inputs and settings give equal manifests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.files import sha256_file
from duckling_data.base.records import short
from duckling_data.base.strict_json import read_json, write_json

FORMAT_VERSION = 1
"""The version of the workspace's layout and of the files in it."""

MANIFEST_NAME = "manifest.json"

ORDER = ("count", "build-vocab", "pack", "report")
"""The stages in the order they are made and stand in the manifest, each needing those before it (the report needs no
rows, but shows them where they are)."""


LONGEST_PLACE = 200
"""Bytes of an output's path in the workspace, at most; every file system takes such a name."""

OBJECTS = {"splits", "ids_for_coverage", "story_length_histogram"}
"""The figures that are objects of figures."""

NUMBERS = {
    *("stories_counted", "null_stories", "empty_stories_counted", "tokens", "distinct", "bin_tokens"),
    *("live", "dead", "coverage", "covered_tokens", "unknown_tokens", "unknown_rate"),
    *("gpt2_tokens", "rows", "dropped_tail_tokens"),
}
"""The figures that are numbers."""


@dataclass
class StageRecord:
    """What one stage made."""

    settings: dict[str, Any]
    """The stage's settings, resolved."""
    inputs: dict[str, str]
    """The digest of everything that the stage read, by name."""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`{"bytes": size, "sha256": hex}` of each file made, by its path inside the workspace."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured on the way: counts, rates, content digests."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as it stands in the manifest."""
        return {
            "settings": self.settings,
            "inputs": self.inputs,
            "outputs": dict(sorted(self.outputs.items())),
            "figures": self.figures,
        }


class _Recorded(dict[str, Any]):
    """An object of a manifest: asked for a key that it lacks, it says so to the user."""

    def __missing__(self, key: str) -> NoReturn:
        raise InputError(f"{MANIFEST_NAME}: {key!r} is missing in it. Remove it; the stages will run again.")


def _recorded(value: Any) -> Any:
    """Return a JSON value with every object in it as `_Recorded`."""
    if isinstance(value, dict):
        return _Recorded({key: _recorded(item) for key, item in value.items()})
    return [_recorded(item) for item in value] if isinstance(value, list) else value


def _read_record(workspace: Path, stage: str, data: Any) -> StageRecord:
    """Return a stage's record from JSON. Raises ValueError, KeyError or TypeError for one that no stage enters."""
    parts = {name: data[name] for name in ("settings", "inputs", "outputs", "figures")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(f"{stage}: {name} is {short(part)}, expected an object")
    for name, digest in parts["inputs"].items():
        _expect(isinstance(digest, str), f"{stage}: input {name}", digest, "a digest")
    for name, output in parts["outputs"].items():
        _check_place(workspace, name)
        _expect(isinstance(output, dict), f"{stage}: output {name}", output, "its bytes and SHA-256")
        size, digest = output.get("bytes", 0), output.get("sha256", "")
        _expect(type(size) is int and size >= 0, f"{stage}: {name} bytes", size, "a number of bytes")
        _expect(isinstance(digest, str), f"{stage}: {name} sha256", digest, "a digest")
    _check_figures(stage, parts["figures"])
    return StageRecord(**{name: _recorded(part) for name, part in parts.items()})


def _check_place(workspace: Path, name: str) -> None:
    """Raise ValueError for an output whose path leads out of the workspace.

    The first part of its name may be a link: data moved to a larger disk. None below may lead out of where that leads.
    """
    path = PurePosixPath(name)
    inside = name == path.as_posix() and path.parts and not path.is_absolute() and not set(path.parts) & {"..", "."}
    inside = inside and len(name.encode()) <= LONGEST_PLACE
    if inside and "\\" not in name and "\0" not in name and ":" not in path.parts[0]:
        place = workspace / path.parts[0]
        if len(path.parts) == 1 or (workspace / name).resolve().is_relative_to(place.resolve()):
            return
    raise ValueError(f"the output {short(name)} is no file's place, or leads out of the workspace")


def _check_figures(stage: str, figures: dict[str, Any]) -> None:
    """Raise ValueError where a figure that other stages read is not of its kind."""
    for name, value in figures.items():
        if name in OBJECTS:
            _expect(isinstance(value, dict), f"{stage}: {name}", value, "an object")
            _check_figures(stage, value)
            if name == "splits":
                _expect(all(isinstance(split, dict) for split in value.values()), f"{stage}: {name}", value, "objects")
                for split in value.values():
                    _check_figures(stage, split)
        elif name.endswith("sha256"):
            _expect(isinstance(value, str), f"{stage}: {name}", value, "a digest")
        elif name in NUMBERS or name.endswith("%"):
            _expect(_is_number(value), f"{stage}: {name}", value, "a number, 0 or more")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _expect(fine: bool, what: str, found: object, expected: str) -> None:
    if not fine:
        raise ValueError(f"{what} is {short(found)}, expected {expected}")


class Manifest:
    """A workspace's `manifest.json`, read once and written after each stage."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.path = workspace / MANIFEST_NAME
        self.corpus: dict[str, Any] | None = None
        """The description of the source (`Corpus.describe`), once there is one."""
        self.stages: dict[str, StageRecord] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        data = read_json(self.path)
        version = data.get("format") if isinstance(data, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            raise InputError(
                f"{self.path}: workspace format {short(version)}, this Duckling reads {FORMAT_VERSION}. "
                "Use another --workspace, or the Duckling that made this one."
            )
        try:
            corpus, stages = data["corpus"], data["stages"]
            if corpus is not None and not isinstance(corpus, dict):
                raise ValueError(f"corpus is {short(corpus)}, expected an object or null")
            self.corpus = corpus
            self.stages = {name: _read_record(self.workspace, name, stage) for name, stage in stages.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self.path}: not a manifest ({type(error).__name__}: {error}). Remove it; the stages will run again."
            ) from error

    def write(self) -> None:
        """Write the manifest in one piece."""
        names = [*(name for name in ORDER if name in self.stages), *sorted(self.stages.keys() - set(ORDER))]
        stages = {name: self.stages[name].to_json() for name in names}
        write_json(self.path, {"format": FORMAT_VERSION, "corpus": self.corpus, "stages": stages})

    def begin(self, stage: str) -> None:
        """Blank a stage's entry before its outputs are replaced: a crash in between must not leave a false one.

        The blank entry still says that the files in the stage's places are this workspace's own, and remembers the
        settings of what stood there.
        """
        before = self.stages.get(stage)
        self.stages[stage] = StageRecord(before.settings if before else {}, {})
        self.write()

    def enter(self, stage: str, record: StageRecord) -> None:
        """Enter a stage whose outputs are in place."""
        self.stages[stage] = record
        self.write()

    def stale(self, stage: str, settings: dict[str, Any], inputs: dict[str, str]) -> str | None:
        """Return why the stage must run again, in a few words, or None if what it made still holds."""
        record = self.stages.get(stage)
        if record is None:
            return "not made yet"
        if not record.outputs:
            return "it was interrupted"
        for name, value in settings.items():
            if record.settings.get(name) != value:
                return f"{name} changed from {record.settings.get(name)} to {value}"
        for name, digest in inputs.items():
            if record.inputs.get(name) != digest:
                return f"{name} changed"
        for name in record.inputs:
            if name not in inputs:
                return f"{name} is there no longer"
        for name, output in record.outputs.items():
            path = self.workspace / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != output["bytes"]:
                return f"{name} has another size than when it was made"
        return None


def describe_output(path: Path) -> dict[str, Any]:
    """Return `{"bytes", "sha256"}` of a file, as the manifest keeps them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def refuse_unrecorded(manifest: Manifest, stage: str, place: str) -> None:
    """Raise CheckFailed if what lies in a place of the stage is not what the stage made, by size and SHA-256.

    `place` is a file or a directory in the workspace. One that the manifest has no record of is let pass.
    """
    record = manifest.stages.get(stage)
    for name, expected in record.outputs.items() if record else ():
        path = manifest.workspace / name
        if name != place and not name.startswith(f"{place}/"):
            continue
        if not path.is_file() or path.stat().st_size != expected["bytes"] or sha256_file(path) != expected["sha256"]:
            raise CheckFailed(
                f"{path}: not the file that `duckling-data {stage}` made. `duckling-data verify` says what is damaged; "
                f"remove {place} and run `duckling-data {stage}` to make it again."
            )
