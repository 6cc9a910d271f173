"""The files of stories in a folder: links are followed, what cannot be read is refused, what is not read is named."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from duckling_data.base.disk import check_utf8
from duckling_data.base.errors import InputError, printable
from duckling_data.corpus.readers import READABLE, file_format
from duckling_data.corpus.remote.store import Place
from duckling_data.workspace.source_record import SOURCE_RECORD

ABOUT = {"readme", "license", "licence", "copying", "notice", "authors", "changelog", "citation"}
"""The names of .txt files that are about the stories beside them."""
UNFINISHED = "_temporary"
"""The folder that Hadoop and Spark keep unfinished files in."""
SHOWN = 20
"""Names in a line, at most."""

Files = list[tuple[Place, str]]
"""(where it is, name in the manifest) of each file."""
Identity = tuple[int, int]
"""The device and the inode of a file or folder."""


def identity(path: Path) -> Identity | None:
    """Return what tells a file or folder from all others, whatever leads to it; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def listed(names: list[str]) -> str:
    """Return names as a part of one line: the first SHOWN, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return printable(", ".join(names[:SHOWN])) + more


@dataclass
class Found:
    """What a folder holds."""

    files: Files = field(default_factory=list)
    """The files of stories, sorted by name."""
    not_read: list[str] = field(default_factory=list)
    """The name of everything else, folders with `/`, and why it is not read, where its name does not say that."""
    outside: list[str] = field(default_factory=list)
    """The links that lead out of the folder; they are followed."""


def story_files(folder: Path, left_out: Mapping[Identity, str]) -> Found:
    """Return what a folder and the folders in it hold; of linked folders each is read once, so links may go in circles.

    `left_out` says what is not read, and why. Raises InputError for a folder or file that cannot be read, a name that
    is not UTF-8, and a folder without stories.
    """
    found = Found()
    root, seen = folder.resolve(), set[Identity]()
    todo: list[tuple[Path, str]] = [(folder, "")]
    linked: list[tuple[Path, str]] = []
    while todo or linked:
        # A folder is read under its own name rather than a link's.
        path, name = todo.pop() if todo else linked.pop(0)
        if (known := identity(path)) in seen:
            found.not_read.append(f"{name} (read already)")
            continue
        seen |= {known} if known else set()
        for inside in _entries(path):
            kind, why = _kind(inside, left_out)
            inside_name = name + inside.name + "/" * (kind == "folder")
            if why is not None:
                found.not_read.append(inside_name + f" ({why})" * bool(why))
                continue
            link = inside.is_symlink()
            if link and not inside.resolve().is_relative_to(root):
                found.outside.append(inside_name)
            if kind == "folder":
                (linked if link else todo).append((inside, inside_name))
            else:
                check_utf8(str(inside), "--source")
                found.files.append((inside, inside_name))
    return finished(found, folder)


def finished(found: Found, folder: Path | str) -> Found:
    """Leave out what is beside stories, and sort the rest. Raises InputError where no stories are left."""
    _leave_out_what_is_beside(found)
    for names in (found.not_read, found.outside):
        names.sort()
    if not found.files:
        rest = f"; not read: {listed(found.not_read)}" if found.not_read else ""
        raise InputError(f"{folder}: holds no stories ({READABLE}){rest}.")
    found.files.sort(key=lambda file: file[1].encode())
    return found


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be read ({error.strerror}); expected a source that can be read whole; "
        "make it readable, or move it out of the source."
    )


def _kind(path: Path, left_out: Mapping[Identity, str]) -> tuple[str, str | None]:
    """Return `folder` or `file`, and None where it is to be read, else why not (nothing where its name says that)."""
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            return "file", "leads nowhere"
        raise _unreadable(path, error) from error
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "file"
    if (why := left_out.get((found.st_dev, found.st_ino))) is not None:
        return kind, why
    if path.name.startswith("."):
        return kind, "hidden"
    if kind == "folder":
        if path.name == UNFINISHED:
            return kind, "unfinished"
        return kind, "a workspace" if identity(path / SOURCE_RECORD) else None
    if file_format(path) is None:
        return kind, ""
    return kind, None if stat.S_ISREG(found.st_mode) else "a pipe or device"


def _leave_out_what_is_beside(found: Found) -> None:
    """Take for no stories what is beside others: README.txt and its like, .json files, and the caches of datasets."""
    for kind in (_is_cache, _is_about, _is_json):
        beside = [file for file in found.files if kind(file[0])]
        if len(beside) < len(found.files):
            found.files = [file for file in found.files if file not in beside]
            found.not_read += [name for _, name in beside]


def _is_cache(path: Place) -> bool:
    return fnmatch(path.name, "cache-*.arrow")


def _is_about(path: Place) -> bool:
    return path.name.lower().split(".")[0] in ABOUT and (file_format(path) or "")[0] == ".txt"


def _is_json(path: Place) -> bool:
    return (file_format(path) or "")[0] == ".json"
