"""Folders in which links stand where files and folders are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from duckling_data.base.files import PARTIAL


def link_every_file(folder: Path, elsewhere: Path, keep: Collection[str] = ()) -> None:
    """Move the folder's files to `elsewhere`, with a link in each one's place and links under the partial names.

    The files of the folders `keep` stay: there only the partial names are links.
    """
    shutil.copytree(folder, elsewhere)
    for original in sorted(path for path in elsewhere.rglob("*") if path.is_file()):
        path = folder / original.relative_to(elsewhere)
        path.with_name(path.name + PARTIAL).symlink_to(original)
        if path.relative_to(folder).parts[0] not in keep:
            path.unlink()
            path.symlink_to(original)


def move_behind_link(path: Path, elsewhere: Path) -> Path:
    """Move a file or folder (a new folder where none is there) to `elsewhere`, and put a link there. Returns `path`."""
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        shutil.move(path, elsewhere)
    else:
        elsewhere.mkdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere)
    return path


def links_in(folder: Path) -> list[str]:
    """The links in a folder, by their paths in it."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()]


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was last written, and its content; every folder by its mode alone."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        if path.is_file()
        else (path.stat().st_mode, os.fsencode(path.name))
        for path in folder.rglob("*")
    }
