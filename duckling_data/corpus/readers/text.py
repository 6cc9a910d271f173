"""JSON Lines and plain text as blocks, cut behind line breaks or `<|endoftext|>`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from duckling_data.base.errors import InputError
from duckling_data.corpus.readers.blocks import STORY_LIMIT, Block, ReadOptions, decompressed, parsed
from duckling_data.corpus.readers.records import parse_records
from duckling_data.workspace.source_record import Findings

BOM = b"\xef\xbb\xbf"
TEXT_SEPARATOR = b"<|endoftext|>"


@dataclass(frozen=True)
class RawBlock:
    """Consecutive bytes of a (decompressed) file that hold whole records."""

    path: Path
    offset: int
    line: int
    """Bytes and lines of the file before this block."""
    data: bytes
    last: bool
    """Whether the file ends here: what comes after the last separator counts only if it is not blank."""

    @property
    def text(self) -> bytes:
        """The bytes without a byte order mark."""
        return self.data[len(BOM) :] if self.offset == 0 and self.data.startswith(BOM) else self.data

    def lines(self) -> list[tuple[int, bytes]]:
        """Return (line number, line) of each line that is not blank."""
        text = self.text
        if text.isspace():  # quick for a gigabyte of line breaks
            return []
        return [(self.line + i, line) for i, line in enumerate(text.split(b"\n"), 1) if line.strip()]

    def pieces(self, newline: str) -> list[bytes]:
        """Return the stories between separators, without the line breaks around them."""
        text = self.data if newline == "keep" else self.text
        if newline == "lf" and b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        pieces = [piece.strip(b"\r\n") for piece in text.split(TEXT_SEPARATOR)]
        # A block that isn't the last ends with a separator: the empty piece behind it belongs to the next block.
        if not self.last or not pieces[-1].strip():
            pieces.pop()
        return pieces

    def note(self, found: Findings) -> None:
        """Note what of the bytes is not in the stories."""
        found.byte_order_mark |= self.text is not self.data
        found.crlf |= b"\r" in self.data and b"\r\n" in self.data

    def parse_lines(self, text_field: str) -> pa.Array:
        """Return the stories of JSON Lines: large_string, nulls kept."""
        self.check_utf8()
        return parse_records(self.path, "line", self.lines(), self.data, text_field)

    def parse_pieces(self, newline: str) -> pa.Array:
        """Return the stories of plain text: large_string."""
        self.check_utf8()
        return pa.array(self.pieces(newline), pa.large_binary()).cast(pa.large_string())

    def check_utf8(self) -> None:
        """Raise InputError at the first byte that is not UTF-8."""
        try:
            self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}: not UTF-8 at byte offset {self.offset + error.start:,} "
                f"(byte 0x{self.data[error.start]:02x}). Repair the file, or convert it to UTF-8."
            ) from error


def line_blocks(path: Path, codec: str | None, how: ReadOptions, block_bytes: int, found: Findings) -> Iterator[Block]:
    """Yield the blocks of a file of JSON Lines. At the end `found` holds the bad lines, if they are skipped."""
    for raw in raw_blocks(path, codec, b"\n", block_bytes):
        if how.on_bad_line == "skip":
            yield parsed(parse_records(path, "line", raw.lines(), raw.data, how.text_field, found))
        else:
            yield Block(len(raw.lines()), partial(raw.parse_lines, how.text_field))


def text_blocks(path: Path, codec: str | None, how: ReadOptions, block_bytes: int, found: Findings) -> Iterator[Block]:
    """Yield the blocks of a file of plain text. At the end `found` holds what was found in it."""
    for raw in raw_blocks(path, codec, TEXT_SEPARATOR, block_bytes):
        if how.newline == "lf":
            raw.note(found)
        pieces = raw.pieces(how.newline)
        found.no_separator = raw.offset == 0 and raw.last and bool(pieces) and TEXT_SEPARATOR not in raw.data
        yield Block(len(pieces), partial(raw.parse_pieces, how.newline))


def raw_blocks(path: Path, codec: str | None, separator: bytes, block_bytes: int) -> Iterator[RawBlock]:
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
        yield RawBlock(path, offset, line, whole, last=False)
        offset += len(whole)
        line += whole.count(b"\n")
        del held[: len(whole)]
        searched = len(held)
    _check_length(path, held, offset, separator)
    yield RawBlock(path, offset, line, bytes(held), last=True)


def _check_length(path: Path, data: bytes | bytearray, offset: int, separator: bytes) -> None:
    """Raise InputError at a record, the bytes between two separators, longer than STORY_LIMIT."""
    if len(data) > STORY_LIMIT and max(map(len, data.split(separator))) > STORY_LIMIT:
        kind = "line break" if separator == b"\n" else repr(separator.decode())
        raise InputError(
            f"{path}: behind byte offset {offset:,} more than {STORY_LIMIT >> 20} MiB without a {kind}, "
            "too long for one story. Put one between the stories."
        )
