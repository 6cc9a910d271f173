"""What all readers share: what a block is, decompression, and the refusal of a file that cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4 << 20
"""Text in a block: large enough to amortise a call into the encoder, small enough for the caches and flat memory."""
STORY_LIMIT = 32 << 20
"""The longest story, or line of JSON, in bytes. Parsing one takes up to nine times that in memory, in each thread."""


@dataclass(frozen=True)
class Block:
    """A part of a file that any thread can parse by itself."""

    stories: int
    """How many stories it holds: known before it is parsed, so that they can be numbered."""
    parse: Callable[[], pa.Array]
    """Returns the stories: a large_string array, nulls kept. Raises InputError for what is no text."""


def decompressed(path: Path, codec: str | None, block_bytes: int) -> Iterator[bytes]:
    """Yield a file's bytes, about block_bytes at a time, decompressed with a pyarrow codec (None: as they are)."""
    import pyarrow as pa

    with refusing(path):
        open_regular(path).close()
        with pa.input_stream(str(path), compression=codec, buffer_size=0) as stream:
            while data := stream.read(block_bytes):
                yield data


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever pyarrow raises about a file into InputError. Its own classes are of several families."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the refusal of a file that could not be read, in one line."""
    message = str(error).strip() or type(error).__name__
    reason = message.split("\n")[0].split(". Detail:")[0][:200]
    return InputError(f"{path}: cannot be read ({reason}). Is the file whole, and is it what its name says?")
