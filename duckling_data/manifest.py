"""The workspace's memory: what each stage made, from what, with which settings. What is not in it does not exist.

`manifest.json` holds no clock, host, path or worker count: equal inputs and settings give equal manifests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duckling_data.errors import InputError
from duckling_data.files import read_json, sha256_file, write_json

FORMAT_VERSION = 1
"""The version of the workspace's layout and of the files in it."""

MANIFEST_NAME = "manifest.json"

ORDER = ("count", "build-vocab", "pack", "report")
"""The stages in the order they are made and stand in the manifest, each needing those before it (the report needs no
rows, but shows them where they are)."""


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
        if version != FORMAT_VERSION:
            raise InputError(
                f"{self.path}: workspace format {version!r}, this Duckling reads {FORMAT_VERSION}. "
                "Use another --workspace, or the Duckling that made this one."
            )
        try:
            self.corpus = data["corpus"]
            self.stages = {
                name: StageRecord(**{key: dict(stage[key]) for key in ("settings", "inputs", "outputs", "figures")})
                for name, stage in data["stages"].items()
            }
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
