"""A JSON list of objects as blocks, cut at the commas between its items without parsing them.

The libraries at hand read a list only whole. So its brackets, commas and strings are found with one regular expression,
and each item is parsed by itself, as a line of JSON Lines is.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow as pa

from duckling_data.base.errors import InputError
from duckling_data.corpus.readers.blocks import STORY_LIMIT, Block, ReadOptions, decompressed, parsed
from duckling_data.corpus.readers.records import parse_records
from duckling_data.corpus.readers.text import BOM
from duckling_data.workspace.source_record import Findings

TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
"""A whole string, the beginning of one that is not whole, a bracket or a comma."""
BLANK = b" \t\r\n"


@dataclass
class _List:
    """A list as far as it was read."""

    path: Path
    held: bytes = b""
    """What was read and not yet given as items."""
    number: int = 0
    """Items given."""
    searched: int = 0
    depth: int = -1
    """Lists and objects around the byte at `searched`, within an item; -1 outside of the list."""
    closed: bool = False
    ends: array[int] = field(default_factory=lambda: array("q"))
    """Where the whole items in `held` end."""

    def read(self, data: bytes, last: bool) -> None:
        """Find the ends of items in what was read before and `data`."""
        self.held += data
        if self.depth < 0 and not self.closed and (last or len(self.held) >= len(BOM)):
            self.held = self.held.removeprefix(BOM).lstrip(BLANK)
            if self.held and not self.held.startswith(b"["):
                raise InputError(
                    f"{self.path}: no JSON list; expected a list of objects. Name a file of JSON Lines .jsonl."
                )
            if self.held:
                self.held, self.depth = self.held[1:], 0
        if self.depth >= 0:
            self._find_ends()
        if self.closed and self.held[self.searched :].strip(BLANK):
            raise InputError(f"{self.path}: goes on after the end of its list; expected one list. Is it whole?")
        if last and not self.closed:
            raise InputError(f"{self.path}: ends within item {self.number + len(self.ends) + 1:,} of its list.")

    def _find_ends(self) -> None:
        for match in TOKEN.finditer(self.held, self.searched):
            token = match[0]
            if token == b'"':  # the string goes on
                self.searched = match.start()
                break
            self.searched = match.end()
            if token in b"[{":
                self.depth += 1
            elif self.depth and token in b"]}":
                self.depth -= 1
            elif not self.depth and token in b",]}":
                self._end(match.start(), token)
                if self.closed:
                    break
        if len(self.held) - (self.ends[-1] if self.ends else 0) > STORY_LIMIT + 1 and not self.closed:
            self._end(len(self.held), b"")

    def _end(self, end: int, token: bytes) -> None:
        """Note the end of an item, which is the list's, too, unless the token is a comma."""
        start = self.ends[-1] + 1 if self.ends else 0
        number = self.number + len(self.ends) + 1
        if end - start > STORY_LIMIT:
            raise InputError(
                f"{self.path}: item {number:,} has more than {STORY_LIMIT >> 20} MiB, too long for a story."
            )
        if token == b"}":
            raise InputError(f"{self.path}: item {number:,}: broken JSON (a brace is closed that is not open).")
        self.closed = token == b"]"
        if not self.closed or number > 1 or self.held[start:end].strip(BLANK):  # an empty list has no item
            self.ends.append(end)
        if self.closed:
            self.depth = -1

    def take(self) -> tuple[int, bytes, array[int]]:
        """Return (items before, bytes, ends) of the whole items, which are no longer held."""
        size = self.ends[-1] + (not self.closed) if self.ends else 0
        taken = self.number, self.held[:size], self.ends
        self.number += len(self.ends)
        self.held = b"" if self.closed else self.held[size:]
        self.searched = 0 if self.closed else self.searched - size
        self.ends = array("q")
        return taken


def list_blocks(path: Path, codec: str | None, how: ReadOptions, block_bytes: int, found: Findings) -> Iterator[Block]:
    """Yield the blocks of a file that is a JSON list. At the end `found` holds the bad items, if they are skipped."""
    whole = _List(path)
    for data in chain(decompressed(path, codec, block_bytes), [b""]):
        whole.read(data, last=not data)
        taken = whole.take()
        if how.on_bad_line == "skip":
            yield parsed(_parse(path, how.text_field, found, *taken))
        else:
            yield Block(len(taken[2]), partial(_parse, path, how.text_field, None, *taken))


def _parse(
    path: Path, text_field: str, skipped: Findings | None, before: int, content: bytes, ends: array[int]
) -> pa.Array:
    starts = [0, *(end + 1 for end in ends)]
    items = [(before + n, content[starts[n - 1] : end]) for n, end in enumerate(ends, 1)]
    return parse_records(path, "item", items, content, text_field, skipped)
