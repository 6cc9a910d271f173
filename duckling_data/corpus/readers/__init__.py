"""Reads stories out of files: Parquet, JSON Lines and plain text, each also compressed.

A file becomes a sequence of *blocks* of some megabytes. Cutting a file into blocks is quick and happens in order;
parsing a block is the work, and threads do it side by side. Where the cuts fall changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from duckling_data.corpus.readers.blocks import BLOCK_BYTES, Block

FORMATS = (".parquet", ".jsonl", ".txt")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
READABLE = ", ".join(FORMATS) + ", each also .gz or .zst"


def file_format(path: Path) -> tuple[str, str | None] | None:
    """Return (one of FORMATS, a pyarrow codec or None) by the file's name, or None for another kind of file."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    codec = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if codec:
        suffixes = suffixes[:-1]
    return (suffixes[-1], codec) if suffixes and suffixes[-1] in FORMATS else None


def read_blocks(path: Path, text_field: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the blocks of one file, in order. Raises InputError for a file that cannot be read as its name says."""
    from duckling_data.corpus.readers import parquet, text

    kind = file_format(path)
    assert kind, path  # the corpus admits no other file
    suffix, codec = kind
    if suffix == ".parquet":
        return parquet.parquet_blocks(path, codec, text_field, block_bytes)
    return text.text_blocks(path, codec, text_field if suffix == ".jsonl" else None, block_bytes)


def count_stories(path: Path, text_field: str) -> int:
    """Return how many stories a file holds, without parsing them."""
    kind = file_format(path)
    if kind and kind[0] == ".parquet":
        from duckling_data.corpus.readers import parquet

        return parquet.count_rows(path, kind[1], text_field)
    return sum(block.stories for block in read_blocks(path, text_field))
