"""Records: a file's size and SHA-256 when it was made, compared with what it is now; and typed JSON, decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, TypeVar

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.files import sha256_file
from duckling_data.base.progress import nothing
from duckling_data.base.strict_json import JSON_LIMIT, read_json

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things: 0 or more."""


NAMED = 20
"""How many files a line names behind the first."""
LONGEST_NAME = 120
"""Characters of a file's name in such a line."""


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What identifies a file's content."""

    bytes: Count
    sha256: str
    """In hex."""


def describe(path: Path) -> FileRecord:
    """Return the record of a regular file. Raises InputError for another kind of file, OSError."""
    return FileRecord(path.stat().st_size, sha256_file(path))


def file_fault(
    path: Path, expected: FileRecord, *, links: bool = True, content: bool = True,
    done: Callable[[int], object] = nothing,
) -> str | None:  # fmt: skip
    """Return how a file differs from its record, in a few words, or None.

    Unless `links`, a symbolic link is a difference. Unless `content`, the size alone is compared, which is quick.
    `done` is told how many bytes were hashed, block by block.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError) as error:  # a name longer than any file's, say
        return f"cannot be a file ({getattr(error, 'strerror', None) or error})"
    if path.is_symlink() and not links:
        return f"is a link to {path.readlink()}, expected the file itself"
    if not path.is_file():
        if not path.exists():
            return "is missing"
        return f"is a {'directory' if path.is_dir() else 'pipe or device'}, expected a file"
    size = path.stat().st_size
    if size != expected.bytes:
        return f"has {size:,} bytes, expected {expected.bytes:,}"
    found = sha256_file(path, done) if content else expected.sha256
    return None if found == expected.sha256 else f"has SHA-256 {found}, expected {expected.sha256}"


def file_faults(
    folder: Path, expected: Mapping[str, FileRecord], *, links: bool = True, content: bool = True,
    done: Callable[[int], object] = nothing,
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Yield (name, difference) of each file in `folder` that is not as recorded. Keywords as `file_fault`'s."""
    for name, record in expected.items():
        fault = file_fault(folder / name, record, links=links, content=content, done=done)
        if fault is not None:
            yield name, fault


def first_fault(folder: Path, faults: Mapping[str, str]) -> str:
    """Return the first of some files' differences as a line, which also names the other files, up to NAMED of them."""
    first, *others = faults
    named = [_cut(name) for name in others[:NAMED]]
    named += [f"{len(others) - NAMED:,} more"] * (len(others) > NAMED)
    return f"{folder / _cut(first)} {faults[first]}" + (f"; also {', '.join(named)}" if others else "")


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def added(found: Iterable[str], expected: Mapping[str, FileRecord]) -> list[str]:
    """Return the names that are there and have no record, sorted."""
    return sorted(set(found) - expected.keys())


def changed(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the names under which two mappings differ, those that only one of them has among them."""
    return [name for name in {**found, **recorded} if recorded.get(name) != found.get(name)]


def decode(value: Any, kind: type[T], where: str, advice: str) -> T:
    """Return a JSON value as an instance of a type that msgspec knows.

    Raises InputError: `WHERE: what is wrong with which part; ADVICE`.
    """
    try:
        return msgspec.convert(value, kind)
    except ValueError as error:
        raise InputError(f"{where}: {shorten(str(error), 300)}; {advice}") from error  # it quotes a field's name


def read_record(path: Path, kind: type[T], advice: str, limit: int = JSON_LIMIT) -> T:
    """Return the record in a JSON file. Raises InputError for a file that cannot be read or is no such record."""
    return decode(read_json(path, limit), kind, str(path), advice)


def plain(record: Any) -> Any:
    """Return a record as JSON holds it: dicts, lists and numbers, in the order of the fields."""
    return msgspec.to_builtins(record)


def short(value: object) -> str:
    """Return a value as one short line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
