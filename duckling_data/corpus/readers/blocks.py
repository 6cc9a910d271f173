"""What all readers share: what a block is, decompression, and the refusal of a file that cannot be read."""

from __future__ import annotations

import contextlib
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular
from duckling_data.workspace.source_record import Newline, OnBadLine

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4 << 20
"""Text in a block: large enough to amortise a call into the encoder, small enough for the caches and flat memory."""
STORY_LIMIT = 32 << 20
"""The longest story, or line of JSON, in bytes. Parsing one takes up to nine times that in memory, in each thread."""

XZ_MEMORY, XZ_READ = 256 << 20, 1 << 16
"""Bytes that unpacking xz may take (its largest usual level takes 65 MiB), and packed bytes read at a time."""


@dataclass(frozen=True)
class ReadOptions:
    """How files are read, where it decides what the stories are."""

    text_field: str = "text"
    """The column or field that holds a story."""
    newline: Newline = "lf"
    """Of plain text: `lf` reads CRLF as a line end and drops a byte order mark; `keep` keeps both."""
    on_bad_line: OnBadLine = "fail"
    """Of JSON, CSV and TSV: whether a line, item or row that cannot be read is refused or left out."""


@dataclass(frozen=True)
class Block:
    """A part of a file that any thread can parse by itself."""

    stories: int
    """How many stories it holds: known before it is parsed, so that they can be numbered."""
    parse: Callable[[], pa.Array]
    """Returns the stories: a large_string array, nulls kept. Raises InputError for what is no text."""


def parsed(stories: pa.Array) -> Block:
    """Return a block of stories that had to be parsed to be counted."""
    return Block(len(stories), lambda: stories)


def decompressed(path: Path, codec: str | None, block_bytes: int) -> Iterator[bytes]:
    """Yield a file's bytes, about block_bytes at a time, decompressed with a pyarrow codec (None: as they are)."""
    import pyarrow as pa

    if codec == "xz":
        held = bytearray()
        for unpacked in _from_xz(path, block_bytes):  # little at a time, where a file has many streams
            held += unpacked
            if len(held) >= block_bytes:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)
        return
    with refusing(path):
        open_regular(path).close()
        with pa.input_stream(str(path), compression=codec, buffer_size=0) as stream:
            while data := stream.read(block_bytes):
                yield data


def _from_xz(path: Path, block_bytes: int) -> Iterator[bytes]:
    """As `decompressed`: pyarrow has no xz. Unpacking takes at most XZ_MEMORY, which a file may set up to 4 GiB."""
    with refusing(path), open_regular(path) as file:
        data = file.read(XZ_READ)
        while data:
            stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
            while not stream.eof:
                if unpacked := stream.decompress(data, block_bytes):
                    yield unpacked
                data = b"" if stream.eof or not stream.needs_input else file.read(XZ_READ)
                if not data and stream.needs_input and not stream.eof:
                    raise ValueError("Truncated compressed stream")
            data = (stream.unused_data or file.read(XZ_READ)).lstrip(b"\0")  # zeros may lie between streams
            while not data and (more := file.read(XZ_READ)):
                data = more.lstrip(b"\0")


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever pyarrow raises about a file into InputError. Its own classes are of several families."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, lzma.LZMAError, OSError, ValueError, OverflowError, MemoryError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the refusal of a file that could not be read, in one line."""
    message = str(error).strip() or type(error).__name__
    reason = message.split("\n")[0].split(". Detail:")[0][:200]
    return InputError(f"{path}: cannot be read ({reason}). Is the file whole, and is it what its name says?")
