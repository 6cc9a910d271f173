"""Files that are either whole or not there: written under a partial name, flushed, renamed.

Of what comes from outside only regular files are read (a named pipe would wait, a device never end), up to a size.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError

PARTIAL = ".partial"
"""The ending of a name under which something is still being written."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, without waiting. Raises InputError for another kind of file, or OSError."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # not on Windows
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise InputError(f"{path}: a pipe or device, expected a regular file. Copy what it gives into a file.")


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a regular file's bytes. Raises InputError for another kind or more than `limit` bytes, or OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if (size := max(size, len(content))) > limit:
        raise InputError(f"{path}: {size:,} bytes, expected at most {limit:,}. Is it the file that its name says?")
    return content


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes, in hex. Raises InputError for another kind of file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing under a partial name; at the end flush it and rename it. Raises as `disk_errors` does."""
    partial = path.with_name(path.name + PARTIAL)
    with disk_errors(path):
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


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as file:
        file.write(data)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries, where its file system can, so that a rename in it outlives a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_directory(finished: Path, path: Path) -> None:
    """Rename a finished directory to `path`; what was there, if anything, is removed."""
    old = path.with_name(path.name + ".old" + PARTIAL)
    with disk_errors(path):
        remove(old)
        if path.exists():
            path.rename(old)
        finished.rename(path)
        sync_directory(path.parent)
        remove(old)
