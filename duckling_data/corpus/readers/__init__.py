"""Reads stories out of files: Parquet, JSON Lines, JSON lists, CSV, TSV and plain text, each also compressed.

A file becomes a sequence of *blocks* of some megabytes. Cutting a file into blocks is quick and happens in order;
parsing a block is the work, and threads do it side by side. Where the cuts fall changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from duckling_data.corpus.readers.blocks import BLOCK_BYTES, Block, ReadOptions
from duckling_data.workspace.source_record import Findings

FORMATS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
ARROW = (".arrow", ".feather")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}
READABLE = f"{', '.join(FORMATS)}, each also .gz, .zst or .xz; {', '.join(ARROW)}"


class Named(Protocol):
    """What has a name: a path, or a file of a store."""

    @property
    def suffixes(self) -> Sequence[str]:
        """The endings of the name."""
        ...


def file_format(path: Named) -> tuple[str, str | None] | None:
    """Return (one of FORMATS or ARROW, one of COMPRESSIONS' values or None) by a file's name, or None."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in ARROW:
        return suffixes[-1], None
    codec = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if codec:
        suffixes = suffixes[:-1]
    return (suffixes[-1], codec) if suffixes and suffixes[-1] in FORMATS else None


def saved_dataset(folder: Path) -> list[Path] | None:
    """Return the files of a folder that `save_to_disk` of datasets wrote, in order; None for another kind of folder."""
    from duckling_data.corpus.readers import arrow

    return arrow.saved_shards(folder)


def read_blocks(
    path: Path, how: ReadOptions, block_bytes: int = BLOCK_BYTES, found: Findings | None = None
) -> Iterator[Block]:
    """Yield the blocks of one file, in order; at the end `found` holds what was found in it.

    Raises InputError for a file that cannot be read as its name says.
    """
    from duckling_data.corpus.readers import arrow, json_list, parquet, table, text

    found = found or Findings()
    kind = file_format(path)
    assert kind, path  # the corpus admits no other file
    suffix, codec = kind
    if suffix == ".parquet":
        return parquet.parquet_blocks(path, codec, how.text_field, block_bytes)
    if suffix == ".txt":
        return text.text_blocks(path, codec, how, block_bytes, found)
    if suffix == ".json":
        return json_list.list_blocks(path, codec, how, block_bytes, found)
    if suffix in ARROW:
        return arrow.arrow_blocks(path, how.text_field, block_bytes)
    if suffix in table.DELIMITERS:
        return table.table_blocks(path, codec, table.DELIMITERS[suffix], how, block_bytes, found)
    return text.line_blocks(path, codec, how, block_bytes, found)


def count_stories(path: Path, how: ReadOptions, found: Findings | None = None) -> int:
    """Return how many stories a file holds, parsed only where it cannot be told else; `found` as in `read_blocks`."""
    kind = file_format(path)
    if kind and kind[0] == ".parquet":
        from duckling_data.corpus.readers import parquet

        return parquet.count_rows(path, kind[1], how.text_field)
    return sum(block.stories for block in read_blocks(path, how, found=found))
