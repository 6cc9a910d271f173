"""Files that are either whole or not there, written beside their place, flushed, renamed; and the strict JSON reader.

What comes from outside is read with suspicion: only regular files (a named pipe would wait, a device never end), no
larger than their kind can be, and JSON that has one meaning: UTF-8, no key twice, no NaN, bounded depth and numbers.
`write_json` writes nothing that `read_json` would refuse.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from duckling_data.errors import InputError, OutsideError

NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)
"""What a system says that flushes no directories, or not for this user."""
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your quota of the disk is used up"}
"""What a system says that has no room left, and how a person is told."""
PARTIAL = ".partial"
"""The ending of a name under which something is still being written."""

JSON_LIMIT = 16 << 20
"""The largest JSON file that is read, in bytes: a manifest of 100,000 source files.

Parsed it takes up to 40 times that in memory, and some seconds."""

JSON_DEPTH = 32
"""Lists and objects inside each other, at most; Duckling's own files have 7."""

JSON_INTEGER = 1 << 63
"""Integers are below this, and not below its negative: what every library behind takes."""

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string; one that nothing ends goes to the end, so that no bytes are looked at twice."""

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that may be half a character. UTF-8 itself has none."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, without waiting. Raises InputError for another kind of file, or OSError."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # a named pipe would wait for a writer
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise InputError(f"{path}: a pipe or device, expected a regular file. Copy what it gives into a file.")


def read_bytes(path: Path, limit: int = JSON_LIMIT) -> bytes:
    """Return a regular file's bytes. Raises InputError for another kind or more than `limit` bytes, or OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        size = max(size, len(content))
        raise InputError(f"{path}: {size:,} bytes, expected at most {limit:,}. Is it the file that its name says?")
    return content


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes, in hex. Raises InputError for another kind of file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """Return the SHA-256, in hex, of a value written as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Needed(NamedTuple):
    """The room that a write still needs on the disk."""

    bytes: int
    sure: str = "about "
    """How sure that is, as it reads before the number: `about `, `at least `, or nothing where it is exact."""


SOME_ROOM = Needed(4096, "at least ")
"""What a directory, a name or another small thing needs: one block of the usual file systems."""


def check_utf8(name: str, what: str) -> None:
    """Raise InputError for a name that is not UTF-8: records are, and the libraries behind open no other name.

    `what` says what the name is of: `--source`.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise InputError(f"{what} {shown}: not UTF-8. Give it a name that is, and run again.") from None


def make_directory(path: Path) -> None:
    """Make a directory and those above it. Raises InputError where that is not allowed, OutsideError when it fails."""
    check_utf8(str(path), "--workspace")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (*FULL, errno.EIO):
            with disk_errors(path):
                raise
        raise InputError(f"{path}: cannot be made ({error.strerror}). Choose another --workspace.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: not writable. Choose another --workspace, or change its permissions.")


@contextlib.contextmanager
def disk_errors(
    path: Path, needed: int | Needed | None = None, instead: str = "choose another --workspace"
) -> Iterator[None]:
    """Turn an operating system's refusal to write into one line that names the path, and the room if the disk is full.

    `needed` is what the write still needs: bytes, or an estimate; None stands for something small. `instead` is the
    way out where none can be freed. Raises InputError for what is not permitted, OutsideError for all else.
    """
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}. Choose another --workspace.") from error
    except OSError as error:
        place = error.filename or path
        if error.errno not in FULL:
            raise OutsideError(f"{place}: cannot be written ({error.strerror or error}).") from error
        room = Needed(needed, "") if isinstance(needed, int) else needed or SOME_ROOM
        free = free_bytes(path)
        known = "" if free is None else f", {in_bytes(free)} free"
        raise OutsideError(
            f"{place}: {FULL[error.errno]}: {room.sure}{in_bytes(room.bytes)} more are needed{known}. "
            f"Free some, or {instead}."
        ) from error


def free_bytes(path: Path) -> int | None:
    """Return the bytes that are free on the disk of a path, there or not; None where the system does not say."""
    try:
        return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.exists())).free
    except (OSError, StopIteration):
        return None


def in_bytes(number: int) -> str:
    """Return a number of bytes as a person reads it: `512 bytes`, `4.1 KB`, `12.3 MB`, `1,234.5 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} bytes"


@contextlib.contextmanager
def replacing(path: Path, needed: int | Needed | None = None) -> Iterator[IO[bytes]]:
    """Open `path` for writing under a partial name; at the end flush it and rename it into its place.

    `needed` is the room that it takes, for the line that a full disk ends in.
    """
    partial = path.with_name(path.name + PARTIAL)
    with disk_errors(path, needed):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_all(file: IO[bytes], data: memoryview | bytes) -> None:
    """Write all of the data to an unbuffered file, which may take it in several goes (2 GiB at most in one)."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) :]


def write_bytes(path: Path, data: bytes, needed: int | None = None) -> None:
    """Write a file as `replacing` does. `needed`: the room for it and what will follow it, where that is known."""
    with replacing(path, len(data) if needed is None else needed) as file:
        file.write(data)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON with a final line break, as `replacing` does.

    Raises InputError for a value that `read_json` would refuse, such as NaN or a name that is no text.
    """
    content = (json.dumps(value, indent=2) + "\n").encode()
    try:
        parse_json(content)
        if len(content) > JSON_LIMIT:
            raise ValueError(f"it takes {len(content):,} bytes, at most {JSON_LIMIT:,} are read")
    except ValueError as error:
        raise InputError(f"{path}: not written, for it could not be read again ({error}).") from error
    write_bytes(path, content)


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """Return a file's JSON, read strictly (`parse_json`).

    Raises InputError for a file that is missing, larger than `limit` bytes, no regular file, or not such JSON.
    """
    try:
        return parse_json(read_bytes(path, limit))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). Remove it and run the command again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def parse_json(content: bytes) -> Any:
    """Return the value of JSON in UTF-8, read strictly.

    Raises ValueError, in one line, for bytes that are not JSON, a key that stands twice in an object, NaN or Infinity,
    a number too large for a float or for 64 bits, more than JSON_DEPTH levels, a byte order mark, half a character.
    """
    try:
        text = content.decode("utf-8")
        if text.startswith("\ufeff"):
            raise ValueError("it starts with a byte order mark; save it as UTF-8 without one")
        _check_depth(content)
        value = _DECODER.decode(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half a character, a lone surrogate") from None
    return value


TOO_DEEP = f"more than {JSON_DEPTH} lists and objects inside each other"


def _check_depth(content: bytes) -> None:
    """Raise ValueError where JSON nests deeper than JSON_DEPTH: seen in its brackets, before anything is built."""
    import numpy as np

    outside = np.frombuffer(STRING.sub(b"", content), np.uint8)
    steps = np.zeros(len(outside), np.int8)
    steps[(outside == ord("[")) | (outside == ord("{"))] = 1
    steps[(outside == ord("]")) | (outside == ord("}"))] = -1
    if len(steps) and int(np.cumsum(steps, dtype=np.int32).max()) > JSON_DEPTH:
        raise ValueError(TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands twice in an object")
    return result


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else JSON_INTEGER
    if not -JSON_INTEGER <= value < JSON_INTEGER:
        raise ValueError(f"an integer of {len(digits):,} digits; 64 bits are the most")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:60]}, which no float holds")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries, so that a rename in it outlives a crash (a no-op where that is not offered)."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise


def replace_directory(finished: Path, place: Path) -> None:
    """Put a finished directory in the place of what is there, if anything is."""
    old = place.with_name(place.name + ".old" + PARTIAL)
    with disk_errors(place):
        if old.exists():
            shutil.rmtree(old)
        if place.exists():
            place.rename(old)
        finished.rename(place)
        sync_directory(place.parent)
        if old.exists():
            shutil.rmtree(old)
