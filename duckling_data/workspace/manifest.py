"""The workspace's memory: what each stage made, from what, with which settings. What is not in it does not exist.

`manifest.json` holds no clock, host, path or worker count: equal inputs and settings give equal manifests. `SHA256SUMS`
holds the digests of the manifest, the stages' outputs and the hub's files as `sha256sum -c` reads them: it follows from
the manifest alone, so that no artifact is hashed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

import msgspec

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.files import sha256_file, write_bytes
from duckling_data.base.progress import SILENT, Reporter
from duckling_data.base.records import Count, FileRecord, changed, decode, file_faults, plain, short
from duckling_data.base.strict_json import read_json, write_json

FORMAT_VERSION = 1
"""The version of the workspace's layout and of the files in it."""
MANIFEST_NAME, SUMS_NAME = "manifest.json", "SHA256SUMS"
LONGEST_PATH = 200
"""Bytes of an output's path in the workspace, at most; every file system takes such a name."""
REMOVE = "remove manifest.json, the next command makes the stages again"

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
    validation_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    """The share of the files' stories that is validation, where a hash of their text divides them."""


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


class _Contents(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    corpus: CorpusRecord | None
    stages: dict[str, StageRecord]


class Manifest:
    """A workspace's `manifest.json`, read once and written after each stage. Raises InputError for a damaged one."""

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
        if version != FORMAT_VERSION:
            raise InputError(
                f"{self.path}: workspace format {short(version)}; expected {FORMAT_VERSION}; "
                "use another --workspace, or the Duckling that made this one."
            )
        contents = decode(data, _Contents, str(self.path), REMOVE)
        self.corpus, self.stages = contents.corpus, contents.stages
        for output in (output for stage in self.stages.values() for output in stage.outputs):
            if not self._is_inside(output):
                raise InputError(f"{self.path}: the output {short(output)} is no path inside the workspace; {REMOVE}")

    def _is_inside(self, name: str) -> bool:
        """Return whether a path stays in its first part, which may be a link: data moved to a larger disk."""
        parts = PurePosixPath(name).parts
        if name != "/".join(parts) or not parts or ".." in parts or set(name) & set("\\:\0"):
            return False
        top, path = self.workspace / parts[0], self.workspace / name
        return len(name.encode()) <= LONGEST_PATH and path.resolve().is_relative_to(top.resolve())

    def write(self) -> None:
        """Write the manifest in one piece. `SHA256SUMS` is removed: no list says nothing wrong."""
        names = sorted(self.stages, key=lambda name: self._order.get(name, len(self._order)))
        stages = {name: plain(self.stages[name]) for name in names}
        for stage in stages.values():
            stage["outputs"] = dict(sorted(stage["outputs"].items()))
        with disk_errors(self.workspace / SUMS_NAME):
            (self.workspace / SUMS_NAME).unlink(missing_ok=True)
        write_json(self.path, {"format": FORMAT_VERSION, "corpus": plain(self.corpus), "stages": stages})

    def begin(self, stage: str) -> None:
        """Keep only the settings of a stage's record, before its outputs are replaced: a crash leaves no false one."""
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
        """Return the figures of a stage, or None where it is not made. Raises InputError for others than a `kind`'s."""
        record = self.made(stage)
        return decode(record.figures, kind, f"{self.path}: stage {stage}, figures", REMOVE) if record else None

    def stale(self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str | None:
        """Return why the stage must run again, in a few words, or None if what it made still holds."""
        record = self.made(stage)
        if record is None:
            return "it was interrupted" if stage in self.stages else "not made yet"
        for name, value in settings.items():
            if record.settings.get(name) != value:
                return f"{name} changed from {record.settings.get(name, 'its default')} to {value}"
        for name in changed(record.inputs, inputs):
            return f"{name} changed"
        for name in changed(record.settings, settings):  # a setting that is left out at its default
            return f"{name} changed from {record.settings[name]} to its default"
        for name, fault in file_faults(self.workspace, record.outputs, content=False):
            return f"{name} {fault}"
        return None

    def refuse_changed(self, stage: str, output: str, reporter: Reporter = SILENT) -> None:
        """Raise CheckFailed if an output, a file or a directory, is recorded and not as the stage made it."""
        record = self.made(stage)
        recorded = record.outputs.items() if record else ()
        expected = {name: made for name, made in recorded if name == output or name.startswith(f"{output}/")}
        with reporter.bar(f"hash {output}", sum(made.bytes for made in expected.values()), "B") as bar:
            for name, fault in file_faults(self.workspace, expected, done=bar.update):
                raise CheckFailed(
                    f"{self.workspace / name}: {fault}, as `duckling-data {stage}` made it; `duckling-data verify` "
                    f"lists what is damaged; remove {output} and run `duckling-data {stage}` to make it again."
                )

    def write_sums(self) -> None:
        """Write `SHA256SUMS`, unless it is as it should be. Call it once the manifest is written."""
        expected, path = self._sums(), self.workspace / SUMS_NAME
        if not path.is_file() or path.read_bytes() != expected:
            write_bytes(path, expected)

    def sums_faults(self) -> Iterator[str]:
        """Yield the first line in which `SHA256SUMS`, if it is there, differs from what the manifest gives."""
        path = self.workspace / SUMS_NAME
        if not path.is_file():
            return
        expected = self._sums().decode().split("\n")
        found = path.read_bytes().decode(errors="replace").split("\n")
        # The manifest's own line last: a damaged manifest changes it and others, and the others say more.
        lines = [(n, e, f) for n, (e, f) in enumerate(zip(expected, found, strict=False), 1) if e != f]
        lines.sort(key=lambda line: line[1].endswith(f"  {MANIFEST_NAME}"))
        if lines:
            number, line, other = lines[0]
            yield f"{SUMS_NAME} line {number} is {other!r}, expected {line!r} from {MANIFEST_NAME}"
        elif found != expected:
            yield f"{SUMS_NAME} has {len(found) - 1} lines, expected {len(expected) - 1}"

    def _sums(self) -> bytes:
        """Return what `SHA256SUMS` has to hold: a line `hex  path` a file, sorted by path."""
        digests = {name: made.sha256 for record in self.stages.values() for name, made in record.outputs.items()}
        if self.corpus is not None and self.corpus.source == "tinystories":  # other sources' files are elsewhere
            files = (file for split in self.corpus.splits.values() for file in split.files)
            digests |= {f"corpus/{file.name}": file.sha256 for file in files}
        digests[MANIFEST_NAME] = sha256_file(self.path)
        return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()
