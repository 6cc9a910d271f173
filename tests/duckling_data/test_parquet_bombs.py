"""A small Parquet file that stands for gigabytes of text: read or refused in bounded memory, whatever its pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers import text_column
from duckling_data.corpus.readers.pages import HEADER_BYTES, Page, read_chunks, read_pages
from tests.duckling_data.test_hostile_readers import MIB, grown, refused, stories

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


@pytest.mark.parametrize("store_schema", [True, False], ids=["read as a dictionary", "read as strings"])
@pytest.mark.parametrize("rows", [1_000, 1_000_000])
def test_a_long_story_in_many_rows_is_refused_in_little_memory(tmp_path: Path, rows: int, store_schema: bool) -> None:
    path = repeated(tmp_path / "b.parquet", ["x" * MIB], rows, store_schema=store_schema)
    assert path.stat().st_size < MIB
    said, memory = grown(path)
    expected = "smaller row groups" if rows == 1_000 else "out of all proportion to its size"
    assert expected in said, said
    assert memory < 600 * MIB


def test_values_that_share_their_begin_are_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    table = pa.table({"text": ["x" * MIB] * 400})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    assert path.stat().st_size < 3 * MIB
    said, memory = grown(path)
    assert "smaller row groups" in said
    assert memory < 600 * MIB


def test_a_story_longer_than_in_any_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"text": ["a", "x" * text_column.STORY_LIMIT]}), path)
    assert [len(story or "") for story in stories(path)] == [1, text_column.STORY_LIMIT]
    pq.write_table(pa.table({"text": ["a", "x" * (text_column.STORY_LIMIT + 1)]}), path)
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
        assert any(page.dictionary for page in pages) == options["use_dictionary"]
        shared = options.get("column_encoding") == {"text": "DELTA_BYTE_ARRAY"}
        assert {page.shares_begins for page in pages} == {shared}
        # What the metadata gives is the pages and their headers, of some 20 to 60 bytes and the statistics.
        assert 0 <= chunk.total_uncompressed_size - sum(page.bytes for page in pages) < 12_000 * len(pages)


def pages_of(path: Path, chunk: Any) -> list[Page]:
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    with path.open("rb") as file:
        return list(read_pages(file, start, chunk.total_compressed_size, chunk.num_values))


def test_a_page_header_longer_than_what_is_read_at_first_is_read_whole(tmp_path: Path) -> None:
    long_text = b"\x18" + b"\x80\x20" + b"m" * 4096 + b"\x00"  # field 1 of a struct: 4,096 bytes of text
    header = b"\x15\x00\x15\x10\x15\x08" + b"\x2c\x15\x06\x15\x00\x15\x06\x15\x06" + b"\x1c" + long_text + b"\x00\x00"
    assert len(header) > HEADER_BYTES
    (tmp_path / "h").write_bytes(header + bytes(4))
    with (tmp_path / "h").open("rb") as file:
        assert list(read_pages(file, 0, len(header) + 4, 3)) == [Page(8, False, False)]
    (tmp_path / "h").write_bytes(header[:-2])
    with (tmp_path / "h").open("rb") as file, pytest.raises(ValueError, match="no whole page header"):
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


def test_metadata_that_announces_more_than_it_holds_is_refused_at_once() -> None:
    doubles = bytes([0x49, 0xF7, *[0xFF] * 8, 0x7F])  # the row groups, a list of 2^63 doubles
    file = io.BytesIO(b"PAR1" + doubles + len(doubles).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match="not whole"):
        read_chunks(file, "text")


def test_a_file_whose_metadata_made_pyarrow_end_the_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(base64.b64decode(ABORTS))
    said, _memory = grown(path)
    assert str(path) in said
