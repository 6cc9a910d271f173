"""Damaged contents of files."""

from __future__ import annotations

import random
from collections.abc import Iterator

FLIPS = 4


def flipped(content: bytes) -> Iterator[bytes]:
    """The content with one bit flipped, in FLIPS different bytes."""
    draw = random.Random(0)
    for position in (0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(FLIPS - 2))):
        bad = bytearray(content)
        bad[position] ^= 1 << draw.randrange(8)
        yield bytes(bad)
