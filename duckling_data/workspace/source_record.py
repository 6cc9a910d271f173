"""`corpus/source.json`: where the stories come from, how many each file holds, and the SHA-256 of the hub's files.

It names places on this machine, so it is never hashed; the manifest holds the files' names, sizes and hashes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from duckling_data.base.disk import make_directory
from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_data.base.strict_json import read_json, write_json

DEFAULT_TEXT_FIELD = "text"

SOURCE_RECORD = "corpus/source.json"

RECORD_VERSION = 1


class SourceRecord:
    """What `corpus/source.json` remembers: the source as given, stories by file hash, hashes of the hub's files."""

    def __init__(self, workspace: Path) -> None:
        self.path = workspace / SOURCE_RECORD
        self.sources: list[str] = []
        self.text_field = DEFAULT_TEXT_FIELD
        self.counted: dict[str, int] = {}
        self.hub: dict[str, str] = {}
        """SHA-256 by `REVISION/NAME` of the hub's files."""
        if self.path.exists():
            self._read(read_json(self.path))

    def _read(self, data: Any) -> None:
        try:
            if data["format"] != RECORD_VERSION:
                raise ValueError(f"format {short(data['format'])}, expected {RECORD_VERSION}")
            self.sources = [str(source) for source in data["sources"]]
            self.text_field = str(data["text_field"])
            self.counted = {str(key): int(count) for key, count in data["counted"].items()}
            self.hub = {str(key): str(sha256) for key, sha256 in data.get("hub", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{self.path}: not a source record ({error}). Remove it and name the --source.") from error

    def write(self) -> None:
        """Write the record in one piece."""
        make_directory(self.path.parent)
        fields = {"sources": self.sources, "text_field": self.text_field, "counted": self.counted}
        hub = {"hub": self.hub} if self.hub else {}
        write_json(self.path, {"format": RECORD_VERSION} | fields | hub)

    def known(self, revision: str) -> dict[str, str]:
        """Return the SHA-256 of the hub's files at that revision, by name."""
        prefix = f"{revision}/"
        return {key.removeprefix(prefix): sha256 for key, sha256 in self.hub.items() if key.startswith(prefix)}
