"""JSON Lines and plain text as blocks, cut behind line breaks or `<|endoftext|>`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
import pyarrow as pa

from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_data.corpus.readers.blocks import STORY_LIMIT, Block, decompressed

TEXT_SEPARATOR = b"<|endoftext|>"


@dataclass(frozen=True)
class _RawBlock:
    """Consecutive bytes of a (decompressed) file that hold whole records."""

    path: Path
    offset: int
    line: int
    """Bytes and lines of the file before this block."""
    data: bytes
    last: bool
    """Whether the file ends here: what comes after the last separator counts only if it is not blank."""

    def lines(self) -> list[tuple[int, bytes]]:
        """Return (line number, line) of each line that is not blank."""
        if self.data.isspace():  # quick for a gigabyte of line breaks
            return []
        return [(self.line + i, line) for i, line in enumerate(self.data.split(b"\n"), 1) if line.strip()]

    def pieces(self) -> list[bytes]:
        """Return the stories between separators, without the line breaks around them."""
        pieces = [piece.strip(b"\r\n") for piece in self.data.split(TEXT_SEPARATOR)]
        # A block that isn't the last ends with a separator: the empty piece behind it belongs to the next block.
        if not self.last or not pieces[-1].strip():
            pieces.pop()
        return pieces

    def parse(self, text_field: str | None) -> pa.Array:
        """Return the stories of JSON Lines, or of plain text where there is no field: large_string, nulls kept."""
        try:
            self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}: not UTF-8 at byte offset {self.offset + error.start:,} "
                f"(byte 0x{self.data[error.start]:02x}). Repair the file, or convert it to UTF-8."
            ) from error
        if text_field is None:
            return pa.array(self.pieces(), pa.large_binary()).cast(pa.large_string())
        return pa.array([self._story(n, line, text_field) for n, line in self.lines()], pa.large_string())

    def _story(self, number: int, line: bytes, text_field: str) -> str | None:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            reason = error.msg.split(": line ")[0]
            raise InputError(f"{self.path}: line {number:,}: broken JSON ({reason}).") from error
        if not isinstance(record, dict) or text_field not in record:
            raise InputError(
                f"{self.path}: line {number:,}: expected an object with {text_field!r}, found {short(record)}. "
                "Name the field that holds the stories with --text-field."
            )
        text = record[text_field]
        if text is not None and not isinstance(text, str):
            raise InputError(f"{self.path}: line {number:,}: {text_field!r} is {short(text)}, expected text.")
        return text


def text_blocks(path: Path, codec: str | None, text_field: str | None, block_bytes: int) -> Iterator[Block]:
    """Yield the blocks of a file of JSON Lines with this field, or of plain text where there is none."""
    for raw in _raw_blocks(path, codec, b"\n" if text_field is not None else TEXT_SEPARATOR, block_bytes):
        stories = raw.lines() if text_field is not None else raw.pieces()
        yield Block(len(stories), partial(raw.parse, text_field))


def _raw_blocks(path: Path, codec: str | None, separator: bytes, block_bytes: int) -> Iterator[_RawBlock]:
    """Cut a (decompressed) file behind separators, about block_bytes a block; the last block may be blank."""
    held = bytearray()
    offset = line = searched = 0
    for data in decompressed(path, codec, block_bytes):
        held += data
        # A separator may straddle two reads: search from a little before the new bytes.
        cut = held.rfind(separator, max(0, searched - len(separator) + 1))
        searched = len(held)
        if cut < 0:
            if len(held) >= STORY_LIMIT + len(separator):  # its end may be the beginning of a separator
                _check_length(path, held, offset, separator)
            continue
        whole = bytes(held[: cut + len(separator)])
        _check_length(path, whole, offset, separator)
        yield _RawBlock(path, offset, line, whole, last=False)
        offset += len(whole)
        line += whole.count(b"\n")
        del held[: len(whole)]
        searched = len(held)
    _check_length(path, held, offset, separator)
    yield _RawBlock(path, offset, line, bytes(held), last=True)


def _check_length(path: Path, data: bytes | bytearray, offset: int, separator: bytes) -> None:
    """Raise InputError at a record, the bytes between two separators, longer than STORY_LIMIT."""
    if len(data) > STORY_LIMIT and max(map(len, data.split(separator))) > STORY_LIMIT:
        kind = "line break" if separator == b"\n" else repr(separator.decode())
        raise InputError(
            f"{path}: behind byte offset {offset:,} more than {STORY_LIMIT >> 20} MiB without a {kind}, "
            "too long for one story. Put one between the stories."
        )
