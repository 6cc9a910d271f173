"""A file is as recorded, or the difference is said; a record from a file is decoded, or refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from duckling_data.base.errors import InputError
from duckling_data.base.records import (
    FileRecord,
    added,
    changed,
    decode,
    describe,
    file_fault,
    file_faults,
    first_fault,
    plain,
)

CONTENT = b"forty bytes of content, more or less: 40"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_a_file_as_it_was_has_no_fault(file: Path) -> None:
    record = describe(file)
    assert record.bytes == len(CONTENT) == 40
    assert file_fault(file, record) is None
    assert list(file_faults(file.parent, {"file": record})) == []
    assert decode(plain(record), FileRecord, "here", "there") == record


def test_every_flipped_bit_is_a_fault_and_none_of_the_size(file: Path) -> None:
    record = describe(file)
    for bit in range(8 * len(CONTENT)):
        flipped = bytearray(CONTENT)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        fault = file_fault(file, record)
        assert fault is not None
        assert fault.startswith("has SHA-256 ")
        assert fault.endswith(f", expected {record.sha256}")
        assert file_fault(file, record, content=False) is None


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT[:20], CONTENT + b"\0", CONTENT + b"\n"])
def test_another_size_is_a_fault_that_is_seen_without_hashing(file: Path, content: bytes) -> None:
    record = describe(file)
    file.write_bytes(content)
    for hashed in (True, False):
        assert file_fault(file, record, content=hashed) == f"has {len(content):,} bytes, expected 40"


@pytest.mark.parametrize("name", ["y" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_is_a_fault(tmp_path: Path, name: str) -> None:
    assert [found for found, _ in file_faults(tmp_path, {name: FileRecord(1, "0" * 64)})] == [name]


def test_a_line_of_faults_is_short_however_many_and_long_the_names_are(tmp_path: Path) -> None:
    line = first_fault(tmp_path, {f"{number}{'y' * 5000}": "is missing" for number in range(1000)})
    assert len(line) < 3000
    assert line.endswith(" more")
    assert first_fault(tmp_path, {"a": "is missing", "b": "is missing"}) == f"{tmp_path / 'a'} is missing; also b"


def test_what_is_no_file_is_a_fault(file: Path) -> None:
    record = describe(file)
    file.rename(file.with_name("other"))
    assert file_fault(file, record) == "is missing"
    file.symlink_to("other")
    assert file_fault(file, record) is None
    assert file_fault(file, record, links=False) == "is a link to other, expected the file itself"
    file.unlink()
    file.mkdir()
    assert file_fault(file, record) == "is a directory, expected a file"
    file.rmdir()
    os.mkfifo(file)
    assert file_fault(file, record) == "is a pipe or device, expected a file"


def test_names_are_compared_both_ways() -> None:
    record = FileRecord(1, "ab")
    assert added(["b", "a", "c"], {"b": record}) == ["a", "c"]
    assert changed({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b", "c"]
    assert changed({"a": 1, "d": None}, {"a": 2}) == ["a"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"bytes": 1}, "missing required field `sha256`"),
        ({"bytes": 1, "sha256": "ab", "more": 1}, "unknown field `more`"),
        ({"bytes": -1, "sha256": "ab"}, "Expected `int` >= 0 - at `$.bytes`"),
        ({"bytes": True, "sha256": "ab"}, "got `bool` - at `$.bytes`"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_a_record_of_another_shape_is_refused_with_the_path_in_it(value: object, said: str) -> None:
    with pytest.raises(InputError) as refused:
        decode(value, FileRecord, "w/manifest.json", "remove it")
    line = str(refused.value)
    assert line.startswith("w/manifest.json: ")
    assert said in line
    assert line.endswith("; remove it")
