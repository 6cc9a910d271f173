"""One process at a time in a place: who comes second waits, or is refused, and is told who is there.

The lock is the kernel's (`flock`) on a file: `.lock` in a workspace, `.NAME.lock` beside a run, which would be taken
for no run if anything stood in it before its settings do. A dead process holds no lock, however it ended. What stands
in the file, a process id and a host, is for the message alone. The file is removed with the lock; one that a killed
process left behind is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL

LOCK = ".lock"
"""The lock's file in a workspace, and the ending of a run's."""

LEFTOVERS = (PARTIAL, ".old" + PARTIAL)
"""Endings of what a process that was killed may leave beside a place: what it wrote, what it was about to remove."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system without locks answers."""

NAMED_WITHIN = 0.2
"""Seconds in which a holder that has just got the lock has written its name."""

WAITING = "waiting for {}, which is at work in {} (Ctrl-C leaves)"

Say = Callable[[str], None]


@contextlib.contextmanager
def held(path: Path, place: Path, waiting: Say | None) -> Iterator[None]:
    """Hold the lock file `path`, in an existing folder, for `place`.

    Where another process holds it: `waiting` is called with one line that names it, and its end is waited for; without
    `waiting`, InputError names it. InputError, too, for a folder that may not be written and a file system without
    locks, OutsideError when the disk fails. A folder in which nothing else changed keeps its time of change.
    """
    folder = path.parent
    with disk_errors(path):
        before = None if path.exists() else folder.stat()
        handle = _acquire(path, place, waiting)
        at_work = folder.stat()
    try:
        with disk_errors(path):
            os.truncate(handle, 0)
            os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield
    finally:
        # Whoever waits holds the file open, and finds it gone from its place: see _acquire. If it cannot be removed,
        # the next holder takes it over.
        with contextlib.suppress(OSError):
            unchanged = folder.stat().st_mtime_ns == at_work.st_mtime_ns
            path.unlink(missing_ok=True)
            if unchanged and before is not None:
                os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.close(handle)


def beside(place: Path) -> Path:
    """Return the lock file of a directory that holds nothing but what it is: beside it, hidden."""
    return place.with_name(f".{place.name}{LOCK}")


def wait_until_free(workspace: Path, waiting: Say) -> None:
    """Wait until nobody holds the workspace's lock, having called `waiting` with one line if somebody does.

    Writes nothing, so it does for a reader that may not write there. Raises InputError on a file system without locks.
    """
    try:
        handle = os.open(workspace / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no lock, no holder
        return
    try:
        if not _lock(handle, workspace, shared=True, wait=False):
            waiting(WAITING.format(_holder(handle), workspace))
            _lock(handle, workspace, shared=True, wait=True)
    finally:
        os.close(handle)


def remove_leftovers(places: Iterable[Path]) -> None:
    """Remove what killed processes left beside these places; to be called under the lock. Nothing else is touched."""
    for place in places:
        for ending in LEFTOVERS:
            path = place.with_name(place.name + ending)
            with disk_errors(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


def _acquire(path: Path, place: Path, waiting: Say | None) -> int:
    """Return the locked descriptor of the file at `path`."""
    said = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _lock(handle, place, shared=False, wait=False):
                if waiting is None:
                    raise InputError(f"{place}: {_holder(handle)} is at work there: wait for it, or stop it.")
                if not said:
                    waiting(WAITING.format(_holder(handle), place))
                    said = True
                _lock(handle, place, shared=False, wait=True)
            # The holder before may have removed this file while we waited: then the lock is of a file that nobody sees.
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, place: Path, *, shared: bool, wait: bool) -> bool:
    """Take the kernel's lock. Returns False where it is held and `wait` is not asked for."""
    if sys.platform == "win32":
        raise InputError("Duckling locks its folders with flock, which Windows has not: use Linux, macOS or WSL.")
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise InputError(
            f"{place}: its file system has no locks ({error.strerror}), so a second process could spoil what is made. "
            "Use a folder on another disk."
        ) from error
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    """Return who holds the lock, as `process 4711 on some-host`."""
    deadline = time.monotonic() + NAMED_WITHIN
    while not (words := os.pread(handle, 300, 0).decode(errors="replace").split()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
