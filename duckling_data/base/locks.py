"""One process at a time in a folder: a second one waits, or is refused, and is told who holds the lock.

The lock is the kernel's (`flock`) on a file, `.lock` in a workspace, `.NAME.lock` beside a run or a sweep, which begins
empty. It ends with the last process that has the file open. The file holds a process id and a host.

Not the library `filelock`: it leaves its file behind, polls instead of waiting for the kernel, does not say for whom it
waits, and has no lock that a reader without the right to write can share.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL, first_link, open_own, remove

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
"""The lock's file in a workspace, and the ending of a run's."""

Say = Callable[[str], None]


@contextlib.contextmanager
def held(path: Path, folder: Path, waiting: Say | None) -> Iterator[int]:
    """Hold the lock file `path`, whose parent exists, for `folder`. Yields its descriptor; children may inherit it.

    Where another process holds it, `waiting` is called with one line that names it, and its end is waited for; without
    `waiting`, InputError names it. Raises InputError, too, where no lock can be written or taken, OutsideError when the
    disk fails. A parent in which nothing else changed keeps its modification time.
    """
    parent = path.parent
    with disk_errors(path):
        before = None if os.path.lexists(path) else parent.stat()
        handle = _acquire(path, folder, waiting)
        locked = parent.stat()
    try:
        with disk_errors(path):
            os.truncate(handle, 0)
            os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield handle
    finally:
        with contextlib.suppress(OSError):  # if it cannot be removed, the next holder reuses it
            unchanged = parent.stat().st_mtime_ns == locked.st_mtime_ns
            path.unlink(missing_ok=True)
            if unchanged and before is not None:
                os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.close(handle)


def beside(folder: Path) -> Path:
    """Return the lock file of a folder that may not hold it: beside the folder, hidden."""
    return folder.with_name(f".{folder.name}{LOCK}")


def wait_until_free(workspace: Path, waiting: Say) -> None:
    """Wait, as `held` does, until nobody holds the workspace's lock; nothing is written."""
    with contextlib.suppress(FileNotFoundError), _opened(workspace / LOCK) as handle:
        _lock(handle, workspace, waiting, shared=True)


def holder(path: Path) -> str | None:
    """Return who holds the lock file `path`, None where nobody does. Nothing is written, no one is waited for."""
    with contextlib.suppress(OSError), _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(handle)
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a lock file to read; FileNotFoundError where none can be: a link is none, no lock is taken through it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise FileNotFoundError(path) from error
    try:
        yield handle
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, outputs: Iterable[str]) -> None:
    """Remove what killed processes left in `folder` beside these outputs; call it under the lock.

    Nothing else is touched, and nothing behind a link.
    """
    for name in outputs:
        if first_link(folder, str(Path(name).parent)) is None:
            for ending in (PARTIAL, ".old" + PARTIAL):
                remove(folder / (name + ending))


def _acquire(path: Path, folder: Path, waiting: Say | None) -> int:
    """Return the locked descriptor of the file at `path`."""
    while True:
        handle = open_own(path, os.O_RDWR)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, handle)
            if _lock(handle, folder, waiting):
                waiting = lambda line: None  # noqa: E731  # one line, however many holders there are
            # The holder before may have removed this file: then the lock is of a file that no other process finds.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    undo.pop_all()
                    return handle


def _lock(handle: int, folder: Path, waiting: Say | None, *, shared: bool = False) -> bool:
    """Take the kernel's lock. Returns whether another process held it. Raises InputError as `held` does."""
    if sys.platform == "win32":
        raise InputError("Windows has no flock, with which Duckling locks its folders: use Linux, macOS or WSL.")
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is None:
            raise InputError(
                f"{folder}: {_holder(handle)}, or one that it started, is at work there: wait, or stop it."
            ) from None
        waiting(f"waiting for {_holder(handle)}, which is at work in {folder} (Ctrl-C leaves)")
        fcntl.flock(handle, kind)
        return True
    except OSError as error:
        raise InputError(
            f"{folder}: its file system has no locks ({error.strerror}), so two processes could write at once. "
            "Use a folder on another disk."
        ) from error
    return False


def _holder(handle: int) -> str:
    """Return who holds the lock, as `process 4711 on some-host`."""
    words = os.pread(handle, 300, 0).decode(errors="replace").split()
    return f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
