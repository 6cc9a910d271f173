"""Files that are either whole or not there: written under a partial name, flushed, renamed.

Of what comes from outside only regular files are read (a named pipe would wait, a device never end), up to a size.

A workspace, a run or a sweep may come from somebody else. Links in it are followed for reading alone: what is written
is either a new file, renamed over whatever has its name, or opened by `open_own`, in a folder that `own_folder` gave.
The workspace, run or sweep itself may be reached through a link.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.progress import nothing

HASH_BLOCK = 1 << 20
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


def open_own(path: Path, flags: int) -> int:
    """Return the descriptor of a file that is written in place; it is made where there is none.

    Raises InputError for a link, for a file that has another name besides (a hard link), and for what is no regular
    file; else OSError.
    """
    guards = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags | os.O_CREAT | guards, 0o666)
    except OSError as error:
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise in_the_way(path, "a file") from error
        raise
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return handle
    os.close(handle)
    raise in_the_way(path, "a file")


def open_to_append(path: Path) -> io.FileIO:
    """Return a file, unbuffered, that what is written is added to. Raises as `open_own` does."""
    return io.FileIO(open_own(path, os.O_WRONLY | os.O_APPEND), "ab")


def own_folder(root: Path, *names: str) -> Path:
    """Return the folder `names` inside `root`, which is there; it is made where it is not.

    Raises InputError where one of the names is a link, or no folder, and as `disk_errors` does.
    """
    path = root
    with disk_errors(root), contextlib.ExitStack() as closing:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        closing.callback(os.close, folder)
        for name in names:
            path = path / name
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                closing.callback(os.close, folder)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise in_the_way(path, "a folder") from error
                error.filename = path
                raise
    return path


def first_link(root: Path, name: str) -> Path | None:
    """Return the first link on the path `name` inside `root`, which is not looked at itself, or None."""
    parts = Path(name).parts
    paths = (root.joinpath(*parts[: number + 1]) for number in range(len(parts)))
    return next((path for path in paths if path.is_symlink()), None)


def refuse_linked(root: Path, name: str) -> None:
    """Raise InputError where the folder `name` inside `root` is a link, or is behind one."""
    if link := first_link(root, name):
        raise in_the_way(link, "a folder")


def in_the_way(path: Path, expected: str) -> InputError:
    """Return the refusal of what is at `path` in place of the file or folder `expected`."""
    through = ": nothing is written through a link"
    if path.is_symlink():
        found = f"a link to {path.readlink()}"
    elif path.is_file() and expected == "a file":
        found = "a file with another name besides (a hard link)"
    else:
        found, through = "a file" if path.is_file() else "a folder" if path.is_dir() else "a pipe or device", ""
    return InputError(f"{path}: {found}, expected {expected}{through}. Move it away.")


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a regular file's bytes. Raises InputError for another kind or more than `limit` bytes, or OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if (size := max(size, len(content))) > limit:
        raise InputError(f"{path}: {size:,} bytes, expected at most {limit:,}. Is it the file that its name says?")
    return content


def sha256_file(path: Path, done: Callable[[int], object] = nothing) -> str:
    """Return the SHA-256 of a regular file's bytes, in hex; `done` is told how many of them were read, block by block.

    Raises InputError for another kind of file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            done(len(block))
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing under a partial name; at the end flush it and rename it. Raises as `disk_errors` does."""
    partial = path.with_name(path.name + PARTIAL)
    with disk_errors(path):
        try:
            remove(partial)  # of a process that was killed, or a link
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


@contextlib.contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """Give a partial name that no other process has; what was written and flushed there gets `path` at the end.

    So several processes may make the same file: the last one stays. Raises as `disk_errors` does.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with disk_errors(path):
        try:
            yield partial
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_all(file: IO[bytes] | io.FileIO, data: memoryview | bytes) -> None:
    """Write all of the data to an unbuffered file, which may take it in several goes (2 GiB at most in one)."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) :]


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as file:
        file.write(data)


def flush(path: Path) -> None:
    """Flush a file that a library, or an open log, has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


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
    """Remove a file, a directory with all in it, or a link alone, if it is there. Raises as `disk_errors` does."""
    with disk_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def replace_directory(finished: Path, path: Path) -> None:
    """Rename a finished directory to `path`; what was there, if anything, is removed."""
    old = path.with_name(path.name + ".old" + PARTIAL)
    with disk_errors(path):
        remove(old)
        if os.path.lexists(path):
            path.rename(old)
        finished.rename(path)
        sync_directory(path.parent)
        remove(old)
