"""A small Parquet file that stands for gigabytes of text: read or refused in bounded memory, whatever its pages."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers.blocks import STORY_LIMIT
from duckling_data.corpus.readers.pages import Page, read_pages
from tests.support.readers import MIB, grown, refused, stories

ABORTS = (
    "UEFSMRUEFYoGFfQBTBUMFQASAAAfiwgAAAAAAAID42dgYPDPS1VIQazUUUhUSMlP1wOKMCgCcUhGqkJyYolCeWKxQnpOYorCo4YpCnmJ"
    "h9eXpSp8mD+hQ8+aEaQ3OVWhtCA/D6i5JDM3VaEkI7UoFawnUSEpP7FET2FUCXYlwNBjSAQRSQANt5CShQEAABUAFRYVPiwVDhUQFQYV"
    "BhwAAAAfiwgAAAAAAAIDY2JgYGCuZmbuOMYEAFBhe6oLAAAAFQQZLDUAGAZzY2hlbWEVAgAVDCUHGAR0ZXh0JQBMHAAAABYOGRwZHCYA"
    "HBUMGTUABhAZGAR0ZXh0FQQWDhbmBhb4AiacAiYIKSwVBBUAFQIAFQAVEBUCADwW2gUZBhkmAgwAAAAW5gYWDiYIFvgCACggcGFycXVl"
    "dC1jcHAtYXJyb3cgdmVyc2lvbiAyNi4wLjEZHBwAAACYAAAAUEFSMQ=="
)
"""A damaged file, found by fuzzing, at whose metadata an accessor of pyarrow ends the process."""


def repeated(path: Path, entries: list[str], rows: int, **options: Any) -> Path:
    """Write `rows` rows, the entries in turn, without ever having them in memory."""
    indices = pa.array([row % len(entries) for row in range(min(rows, 10_000))], pa.int32())
    table = pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(entries))})
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        writer.write_table(pa.concat_tables([table] * max(1, rows // 10_000)), row_group_size=rows)
    return path


def plain(path: Path, column: pa.Array, times: int, **options: Any) -> Path:
    """Write the column so many times, in plain pages of 1,024 rows and one row group."""
    table = pa.table({"text": column})
    with pq.ParquetWriter(path, table.schema, use_dictionary=False, compression="zstd", **options) as writer:
        writer.write_table(pa.concat_tables([table] * times), row_group_size=times * len(column))
    return path


def lying(path: Path) -> Path:
    """Write a file whose metadata gives each text a size of 1 byte, and no dictionary."""
    repeated(path, ["x" * MIB], 20_000)
    content = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    sizes = varint(chunk.total_uncompressed_size)
    assert content.count(sizes) >= 2  # of the column and of the row group
    content = content.replace(sizes, bytes([0x82] + [0x80] * (len(sizes) - 2) + [0]))
    # Field 9, where the data begin, now has what field 11 has; field 12 follows it at once.
    places = b"\x26" + varint(chunk.data_page_offset) + b"\x26" + varint(chunk.dictionary_page_offset) + b"\x1c"
    at = content.index(places)
    footer = content[:at] + b"\x26" + varint(chunk.dictionary_page_offset) + b"\x3c" + content[at + len(places) : -8]
    length = len(footer) - (len(content) - 8 - int.from_bytes(content[-8:-4], "little"))
    path.write_bytes(footer + length.to_bytes(4, "little") + b"PAR1")
    assert not pq.ParquetFile(path).metadata.row_group(0).column(0).has_dictionary_page
    return path


def varint(value: int) -> bytes:
    """Return a signed number in Thrift's compact protocol."""
    value, digits = value << 1, []
    while value > 127:
        value, digits = value >> 7, [*digits, value & 127 | 128]
    return bytes([*digits, value])


LONG = "x" * MIB
ODD = ["x" * (31 * MIB)] * 4
"""Long stories at the end of one page and the beginning of the next."""
REFUSED = "out of all proportion to its size"
GROUPS = "smaller row groups"
BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "1 GB, read as a dictionary": (lambda path: repeated(path, [LONG], 1_000), GROUPS),
    "1 GB, read as strings": (lambda path: repeated(path, [LONG], 1_000, store_schema=False), GROUPS),
    "20 GB": (lambda path: repeated(path, [LONG], 20_000), GROUPS),
    "20 GB, metadata that lies": (lying, REFUSED),
    "shared prefixes": (
        lambda path: plain(path, pa.array([LONG] * 400), 1, column_encoding={"text": "DELTA_BYTE_ARRAY"}), GROUPS,
    ),
    "plain pages": (lambda path: plain(path, pa.array([LONG] * 128), 8, write_batch_size=8), REFUSED),
    "plain pages, read as a dictionary": (
        lambda path: plain(path, pa.array([f"{n:03}{LONG}" for n in range(128)]).dictionary_encode(), 8,
                           write_batch_size=8), REFUSED,
    ),
    "long stories at the ends of pages": (
        lambda path: plain(path, pa.array([""] * 1020 + ODD + ODD + [""] * 1020), 2), REFUSED,
    ),
    "a page too large": (lambda path: plain(path, pa.array(["x" * (30 * MIB)] * 9), 1), "a page of more than 256 MiB"),
    "pyarrow ends the process": (lambda path: decoded(path, ABORTS), "cannot be read"),
}  # fmt: skip


def decoded(path: Path, content: str) -> Path:
    path.write_bytes(base64.b64decode(content))
    return path


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """What one child that reads all of BOMBS says of each, and by how much its memory has grown until then."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = [make(folder / f"{number}.parquet") for number, (make, _) in enumerate(BOMBS.values())]
    assert max(path.stat().st_size for path in paths) < MIB
    return dict(zip(BOMBS, grown(*paths), strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_of_gigabytes_is_refused_in_bounded_memory(read: dict[str, tuple[str, int]], name: str) -> None:
    said, memory = read[name]
    assert BOMBS[name][1] in said
    assert memory < 1000 * MIB


def test_a_story_longer_than_in_any_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"text": ["a", "x" * STORY_LIMIT]}), path)
    assert [len(story or "") for story in stories(path)] == [1, STORY_LIMIT]
    pq.write_table(pa.table({"text": ["a", "x" * (STORY_LIMIT + 1)]}), path)
    assert "at most 33,554,432 are read" in refused(path)


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("rows", [40, 50_000])
def test_stories_that_repeat_are_read_one_by_one(tmp_path: Path, rows: int, store_schema: bool) -> None:
    entries = ["", "once upon a time " * 30, "the end"]
    path = repeated(tmp_path / "r.parquet", entries, rows, store_schema=store_schema)
    assert stories(path) == [entries[row % 10_000 % 3] for row in range(rows)] if rows > 40 else entries


def every_kind() -> Iterator[tuple[str, dict[str, Any]]]:
    for version in ("1.0", "2.0"):
        for dictionary in (True, False):
            for compression in ("snappy", "zstd", "none"):
                yield f"{version} {dictionary} {compression}", {
                    "data_page_version": version, "use_dictionary": dictionary, "compression": compression,
                }  # fmt: skip
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"):
        yield encoding, {"use_dictionary": False, "column_encoding": {"text": encoding}}


@pytest.mark.parametrize("options", [pytest.param(options, id=name) for name, options in every_kind()])
def test_every_kind_of_page_is_read_and_measured(tmp_path: Path, options: dict[str, Any]) -> None:
    texts = [*demo_stories(0, 300).to_pylist(), None, "", "é" * 3000]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"n": range(303), "text": texts}), path, row_group_size=101, data_page_size=4096, **options)
    assert stories(path) == texts
    metadata = pq.ParquetFile(path).metadata
    for group in range(3):
        chunk = metadata.row_group(group).column(1)
        pages = pages_of(path, chunk)
        shared = options.get("column_encoding") == {"text": "DELTA_BYTE_ARRAY"}
        assert any(page.repeats for page in pages) == (shared or options["use_dictionary"])
        assert sum(page.values for page in pages) == 101
        # What the metadata gives is the pages and their headers, of some 20 to 60 bytes and the statistics.
        assert 0 <= chunk.total_uncompressed_size - sum(page.bytes for page in pages) < 12_000 * len(pages)


def pages_of(path: Path, chunk: Any) -> list[Page]:
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    with path.open("rb") as file:
        return list(read_pages(file, start, chunk.total_compressed_size, 101))


def test_a_page_header_with_long_statistics_is_read_whole(tmp_path: Path) -> None:
    long_text = b"\x18" + b"\x80\x20" + b"m" * 4096 + b"\x00"  # field 1 of a struct: 4,096 bytes of text
    header = b"\x15\x00\x15\x10\x15\x08" + b"\x2c\x15\x06\x15\x00\x15\x06\x15\x06" + b"\x1c" + long_text + b"\x00\x00"
    (tmp_path / "h").write_bytes(header + bytes(4))
    with (tmp_path / "h").open("rb") as file:
        assert list(read_pages(file, 0, len(header) + 4, 3)) == [Page(8, 3, False)]
    (tmp_path / "h").write_bytes(header[:-2])
    with (tmp_path / "h").open("rb") as file, pytest.raises(ValueError, match="a page header that is not whole"):
        list(read_pages(file, 0, len(header), 3))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x00",
        b"\x15\x00\x15\x01\x15\x01\x00",
        b"\x1c" * 99,
        b"\x15" + b"\xff" * 99,
        b"\x19\x55",
        b"\x25\x02\x15\x02\x25\x02\x00",
    ],
)
def test_what_is_no_page_header_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "h").write_bytes(header)
    with (tmp_path / "h").open("rb") as file, pytest.raises(ValueError, match="page"):
        list(read_pages(file, 0, 1000, 1))


def test_metadata_that_announces_more_than_it_holds_is_refused_at_once(tmp_path: Path) -> None:
    doubles = bytes([0x49, 0xF7, *[0xFF] * 8, 0x7F])  # the row groups, a list of 2^63 doubles
    path = tmp_path / "m.parquet"
    path.write_bytes(b"PAR1" + doubles + len(doubles).to_bytes(4, "little") + b"PAR1")
    refused(path)
