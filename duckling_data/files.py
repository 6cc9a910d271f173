"""Files that are either whole or not there: written beside their place, flushed, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from duckling_data.errors import InputError, OutsideError

PARTIAL = ".partial"
"""The ending of a name under which something is still being written."""


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """Return the SHA-256, in hex, of a value written as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_directory(path: Path) -> None:
    """Make a directory and those above it. Raises InputError where that is not allowed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}). Choose another --workspace.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: not writable. Choose another --workspace, or change its permissions.")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into one line that names the path."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}. Choose another --workspace.") from error
    except OSError as error:
        raise OutsideError(f"{error.filename or path}: cannot be written ({error.strerror or error}).") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing under a partial name; at the end flush it and rename it into its place."""
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


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON with a final line break, as `replacing` does."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return a file's JSON. Raises InputError for a file that is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not JSON ({str(error).splitlines()[0]}). Remove it and run the command again."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def sync_directory(path: Path) -> None:
    """Flush a directory's entries, so that a rename in it outlives a crash (a no-op where that is not offered)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
