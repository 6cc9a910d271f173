"""Where a file of the hub lies while it is not whole, and what becomes of one that is refused.

What comes is written to `.cache/NAME.SHA.incomplete` in the corpus folder, under a lock, and stays there if the way is
cut: the next try, or the next command, goes on with it. A refused file is kept beside its place as `NAME.refused`,
which nothing reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import sync_directory
from duckling_data.base.progress import Reporter
from duckling_data.corpus.hub.dataset import HubFile

CACHE = ".cache"
INCOMPLETE = ".incomplete"
REFUSED = ".refused"


def incomplete_path(folder: Path, file: HubFile, sha256: str | None) -> Path:
    """Return where the file lies while it comes: by its content, so that only the same file is ever gone on with."""
    return folder / CACHE / f"{file.name}.{(sha256 or file.revision)[:16]}{INCOMPLETE}"


def begun_bytes(folder: Path, file: HubFile) -> int:
    """Return how much of the file lies there from interrupted downloads, all of it at the most."""
    place = folder / CACHE / file.name
    sizes = [path.stat().st_size for path in place.parent.glob(f"{glob.escape(place.name)}.*{INCOMPLETE}")]
    return min(file.size, max(sizes, default=0))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open the incomplete file for going on, made if it is not there, for this process alone.

    Raises InputError if another process is writing it, InputError or OutsideError if it cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("ab")
    with handle:
        if not _locked(handle):
            raise InputError(f"{path}: another process is downloading this file. Wait for it, then run again.")
        try:
            yield handle
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:  # nothing came
                    path.unlink()


def _locked(handle: BinaryIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: as good as alone, and the hash is compared in the end
    return True


def put_in_place(incomplete: Path, place: Path) -> None:
    """Rename a file that is whole and flushed into its place."""
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        incomplete.replace(place)
        sync_directory(place.parent)


def set_aside(path: Path, place: Path) -> Path:
    """Rename a file that is refused to a name beside `place` that is not taken yet, and return that name."""
    number = 1
    while (aside := place.with_name(place.name + REFUSED + (f"-{number}" if number > 1 else ""))).exists():
        number += 1
    with disk_errors(aside):
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.rename(aside)
    return aside


def remove_leftovers(folder: Path, reporter: Reporter) -> None:
    """Remove what interrupted downloads left, once every file is there, and say so.

    These are incomplete files of ours for other content than came in the end, and those of huggingface_hub, which never
    goes on with one. A file that is being written stays.
    """
    sizes = []
    for path in sorted((folder / CACHE).rglob("*" + INCOMPLETE)):
        with contextlib.suppress(OSError), path.open("ab") as handle:
            if _locked(handle):
                size = path.stat().st_size
                path.unlink()
                sizes.append(size)
    if sizes:
        reporter.say(
            f"download     removed {len(sizes)} incomplete file{'s' * (len(sizes) > 1)} of interrupted downloads "
            f"({sum(sizes) / 1e6:,.1f} MB)"
        )
