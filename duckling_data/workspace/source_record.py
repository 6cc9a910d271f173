"""`corpus/source.json`: where the stories come from, how many each file holds, and the SHA-256 of the hub's files.

It names paths on this machine, so it is never hashed; the manifest holds the files' names, sizes and hashes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from duckling_data.base.disk import make_directory
from duckling_data.base.records import Count, plain, read_record
from duckling_data.base.strict_json import write_json

DEFAULT_TEXT_FIELD = "text"

SOURCE_RECORD = "corpus/source.json"


class _Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: Literal[1]
    sources: list[str]
    text_field: str
    counted: dict[str, Count]
    hub: dict[str, str] = {}


class SourceRecord:
    """What `corpus/source.json` remembers: the source as given, stories by file hash, hashes of the hub's files.

    Raises InputError for a file that is no such record.
    """

    def __init__(self, workspace: Path) -> None:
        self.path = workspace / SOURCE_RECORD
        contents = _Contents(1, [], DEFAULT_TEXT_FIELD, {})
        if self.path.exists():
            contents = read_record(self.path, _Contents, "remove it and name the --source again.")
        self.sources = contents.sources
        self.text_field = contents.text_field
        self.counted = contents.counted
        self.hub = contents.hub
        """SHA-256 by `REVISION/NAME` of the hub's files."""

    def write(self) -> None:
        """Write the record in one piece."""
        make_directory(self.path.parent)
        write_json(self.path, plain(_Contents(1, self.sources, self.text_field, self.counted, self.hub)))

    def known(self, revision: str) -> dict[str, str]:
        """Return the SHA-256 of the hub's files at that revision, by name."""
        prefix = f"{revision}/"
        return {key.removeprefix(prefix): sha256 for key, sha256 in self.hub.items() if key.startswith(prefix)}
