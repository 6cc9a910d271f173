"""CSV and TSV as blocks, read by the standard library's csv module in its strict mode.

pyarrow's reader is faster, but takes a quoted field that never ends, joins what follows a closing quote to the field,
and has no limit for the width of a row. Rows are parsed to be counted: a line break may be within quotes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_data.corpus.readers.blocks import STORY_LIMIT, Block, ReadOptions, parsed
from duckling_data.corpus.readers.text import raw_blocks
from duckling_data.workspace.source_record import Findings

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class _Lines:
    """A file's lines, with their ends; `row_bytes`, which the reader of rows resets, may not exceed STORY_LIMIT."""

    def __init__(self, path: Path, codec: str | None, block_bytes: int) -> None:
        self.path, self.row_bytes = path, 0
        self._lines = self._read(codec, block_bytes)

    def _read(self, codec: str | None, block_bytes: int) -> Iterator[str]:
        for raw in raw_blocks(self.path, codec, b"\n", block_bytes):
            raw.check_utf8()
            yield from io.StringIO(raw.text.decode(), newline="\n")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.row_bytes += len(line)
        if self.row_bytes > STORY_LIMIT:
            raise InputError(
                f"{self.path}: a row of more than {STORY_LIMIT >> 20} MiB, too long for a story. Is a quote not closed?"
            )
        return line


def table_blocks(
    path: Path, codec: str | None, delimiter: str, how: ReadOptions, block_bytes: int, found: Findings
) -> Iterator[Block]:
    """Yield the blocks of a file of CSV whose first row names the columns. `found` as in `line_blocks`."""
    stories: list[str] = []
    size = 0
    for story in _stories(path, codec, delimiter, how, block_bytes, found):
        stories.append(story)
        size += len(story) + 1
        if size >= block_bytes:
            yield parsed(pa.array(stories, pa.large_string()))
            stories, size = [], 0
    yield parsed(pa.array(stories, pa.large_string()))


def _stories(
    path: Path, codec: str | None, delimiter: str, how: ReadOptions, block_bytes: int, found: Findings
) -> Iterator[str]:
    csv.field_size_limit(max(STORY_LIMIT, csv.field_size_limit()))  # a row's limit comes first
    lines = _Lines(path, codec, block_bytes)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        number, lines.row_bytes = rows.line_num + 1, 0
        try:
            row = next(rows, None)
            if row is None:
                return
            if header and row and len(row) != len(header):
                raise csv.Error(f"{len(row):,} fields, expected {len(header):,} as in the first row")
        except csv.Error as error:
            reason = f"line {number:,}: {str(error).split(' - ')[0]}"
            if how.on_bad_line == "fail" or not header or "unexpected end" in reason:  # that is not one line
                raise InputError(f"{path}: {reason}. Repair the row, and its quotes.") from error
            found.skip(reason)
            continue
        if row and not header:
            header, column = row, _column(path, row, how.text_field)
        elif row:
            yield row[column]


def _column(path: Path, header: list[str], text_field: str) -> int:
    """Return the index of the column of that name. Raises InputError unless there is one."""
    if header.count(text_field) != 1:
        shown = ", ".join(map(short, header[:8])) + (f" and {len(header) - 8:,} more" if header[8:] else "")
        raise InputError(
            f"{path}: {header.count(text_field)} columns {text_field!r}, expected one; it has {shown}. "
            "Name the one that holds the stories with --text-field."
        )
    return header.index(text_field)
