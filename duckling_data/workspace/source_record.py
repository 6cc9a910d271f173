"""`corpus/source.json`: where the stories come from, how many each file holds, and the SHA-256 of the hub's files.

It names paths on this machine, so it is never hashed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from duckling_data.base.files import own_folder
from duckling_data.base.records import Count, plain, read_record
from duckling_data.base.strict_json import digest_json, read_json, write_json

DEFAULT_TEXT_FIELD = "text"
CORPUS = "corpus"
"""The folder of the record, and of the hub's files."""
SOURCE_RECORD = f"{CORPUS}/source.json"


Newline = Literal["lf", "keep"]
OnBadLine = Literal["fail", "skip"]
LISTED = 10
"""Bad lines of a file that are kept to be listed, at most."""


class Findings(msgspec.Struct, omit_defaults=True):
    """What a reader found in a file, and what it made of that."""

    byte_order_mark: bool = False
    """Whether plain text began with one, which was dropped."""
    crlf: bool = False
    """Whether plain text had CRLF, which was read as a line end."""
    no_separator: bool = False
    """Whether plain text had no `<|endoftext|>`, and is one story."""

    skipped: Count = 0
    """How many bad lines, items or rows were left out."""
    bad_lines: list[str] = []
    """The first of them, and why."""

    def skip(self, what: str) -> None:
        """Note a bad line that is left out."""
        self.skipped += 1
        if len(self.bad_lines) < LISTED:
            self.bad_lines.append(what)

    def changes(self) -> list[str]:
        """Return which options have changed the stories, as the corpus's digest names them."""
        return ["lf"] * (self.byte_order_mark or self.crlf) + ["skip"] * (self.skipped > 0)


class Measured(msgspec.Struct, frozen=True):
    """What a file on this machine was when it was hashed."""

    bytes: Count
    modified: int
    """Its modification time in nanoseconds."""
    sha256: str


class RemoteFile(msgspec.Struct, frozen=True):
    """A file of a store when it was last fetched: it is fetched again only if its store says something else of it."""

    bytes: Count
    tag: str
    """What its store calls its content: a checksum or an ETag."""
    sha256: str


class SourceRecord(msgspec.Struct, omit_defaults=True):
    """The content of `corpus/source.json`."""

    format: Literal[1]
    sources: list[str]
    """The source as given; empty where none is remembered."""
    text_field: str
    counted: dict[str, Count]
    """Stories by file hash, format and text field."""
    hub: dict[str, str] = {}
    """SHA-256 of the hub's files by `REVISION/NAME`."""
    validation: list[str] = []
    """The files of the validation stories as given; empty where none are."""
    validation_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """The share of the stories that a hash of their text makes the validation split; 0 where none is given."""
    newline: Newline = "keep"
    """As in `ReadOptions`; version 0.1.0, which did not say it, kept line ends."""
    on_bad_line: OnBadLine = "fail"
    found: dict[str, Findings] = {}
    """What was found in files, by the keys of `counted`."""
    measured: dict[str, Measured] = {}
    """The files by path, for tasks that read a part of them and do not hash them all again."""
    remote: dict[str, RemoteFile] = {}
    """Files of stores, by URL. No URL holds a secret."""
    record_sha256: str = ""
    """In the file: the digest of all the others; earlier versions wrote none."""

    def known(self, revision: str) -> dict[str, str]:
        """Return the SHA-256 of the hub's files at that revision, by name."""
        prefix = f"{revision}/"
        return {key.removeprefix(prefix): sha256 for key, sha256 in self.hub.items() if key.startswith(prefix)}


def read_source(workspace: Path) -> SourceRecord:
    """Return what the workspace remembers, else an empty record. Raises InputError for a damaged file."""
    path = workspace / SOURCE_RECORD
    if not path.exists():
        return SourceRecord(1, [], DEFAULT_TEXT_FIELD, {}, newline="lf")
    record = read_record(path, SourceRecord, "it is not a source record. Remove it and name the --source.")
    return msgspec.structs.replace(record, record_sha256="")


def source_fault(workspace: Path) -> str | None:
    """Return how the workspace's record differs from what was written, in a few words, or None."""
    path = workspace / SOURCE_RECORD
    written = read_json(path).get("record_sha256") if path.exists() else None
    expected = _digest(read_source(workspace))
    return None if written in (None, expected) else f"has the digest {written}, expected {expected} for its content"


def write_source(workspace: Path, record: SourceRecord) -> None:
    """Write the record in one piece."""
    own_folder(workspace, CORPUS)
    write_json(workspace / SOURCE_RECORD, plain(msgspec.structs.replace(record, record_sha256=_digest(record))))


def _digest(record: SourceRecord) -> str:
    return digest_json(plain(record))
