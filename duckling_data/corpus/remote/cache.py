"""Files of a store on this machine, for as long as they are read.

A file is fetched when it is to be read, into a folder of this process, under a number and the ending of its format: no
name from outside is part of a path. It stays while somebody holds it, and after that as long as what is held by nobody
takes at most KEPT bytes, so that a later stage need not fetch it again. The folder goes when the process ends; that of
a process that was killed is removed by the next one that fetches.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from duckling_data.base.disk import check_room, disk_errors
from duckling_data.base.errors import SourceChanged
from duckling_data.base.files import remove, sha256_file
from duckling_data.base.progress import SILENT, Reporter, nothing
from duckling_data.corpus.readers import COMPRESSIONS, file_format
from duckling_data.corpus.remote.store import Remote, get

if sys.platform != "win32":
    import fcntl

PREFIX, SUFFIX = "duckling-", ".fetched"
ENDINGS = {codec: ending for ending, codec in COMPRESSIONS.items()}
KEPT = 2 << 30
"""Bytes of files that are held by nobody and kept for a later stage, at most."""
ELSEWHERE = "set TMPDIR to a folder on another disk"


@dataclass
class Copy:
    """A file of a store, fetched."""

    remote: Remote
    path: Path
    sha256: str
    holders: int = 0


@dataclass(eq=False)
class Held:
    """A fetched file, which stays where it is while this object, or a block of stories that is read from it, exists."""

    path: Path
    sha256: str


@dataclass
class _Cache:
    """The fetched files of a process, those used last at the end."""

    folder: Path
    handle: int
    """The folder's descriptor, locked while the process lives."""
    copies: dict[Remote, Copy] = field(default_factory=dict)
    numbers: count[int] = field(default_factory=count)
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Reentrant: what ends a hold may run anywhere, also in a thread that has it."""

    def hold(self, remote: Remote, done: Callable[[int], object], reporter: Reporter) -> Held:
        copy = self._known(remote) or self._fetched(remote, done, reporter)
        held = Held(copy.path, copy.sha256)
        weakref.finalize(held, self._release, copy)
        return held

    def _known(self, remote: Remote) -> Copy | None:
        with self.lock:
            copy = self.copies.pop(remote, None)
            if copy:
                self.copies[remote] = copy
                copy.holders += 1
            return copy

    def _fetched(self, remote: Remote, done: Callable[[int], object], reporter: Reporter) -> Copy:
        suffix, codec = file_format(remote) or ("", None)
        path = self.folder / f"{next(self.numbers)}{suffix}{ENDINGS[codec] if codec else ''}"
        check_room(self.folder, remote.state.size, f"{remote}", ELSEWHERE)
        try:
            get(remote, path, done, reporter)
            copy = Copy(remote, path, sha256_file(path), 1)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self.lock:
            self.copies.setdefault(remote, copy)  # another thread's is kept, and this one removed when it is released
        return copy

    def _release(self, copy: Copy) -> None:
        with self.lock:
            copy.holders -= 1
            unused = [one for one in [*self.copies.values()] if not one.holders]
            size = sum(one.remote.state.size for one in unused)
            for one in unused:
                if size <= KEPT:
                    break
                self.copies.pop(one.remote, None)
                one.path.unlink(missing_ok=True)
                size -= one.remote.state.size
            if not copy.holders and self.copies.get(copy.remote) is not copy:
                copy.path.unlink(missing_ok=True)


_caches: dict[int, _Cache] = {}
_making = threading.Lock()


def hold(remote: Remote, done: Callable[[int], object] = nothing, reporter: Reporter = SILENT) -> Held:
    """Return a file of a store, fetched to this machine and hashed, unless it is there already.

    Raises SourceChanged where the store has another file by now, and as `tries.retried` does.
    """
    with _making:
        if (cache := _caches.get(os.getpid())) is None:
            cache = _caches[os.getpid()] = _made()
    return cache.hold(remote, done, reporter)


def held_as(remote: Remote, sha256: str) -> Held:
    """Return the file as `hold` does. Raises SourceChanged, too, where its SHA-256 is another one."""
    held = hold(remote)
    if held.sha256 != sha256:
        raise SourceChanged(
            f"{remote}: has SHA-256 {held.sha256}, expected {sha256} as when it was first read; run the command again."
        )
    return held


def _made() -> _Cache:
    """Return the empty cache of this process, what killed processes left removed."""
    with disk_errors(Path(tempfile.gettempdir()), ELSEWHERE):
        _remove_leftovers()
        while True:  # until the folder is locked before another process takes it for a leftover
            folder = Path(tempfile.mkdtemp(SUFFIX, PREFIX))
            handle = os.open(folder, os.O_RDONLY)
            if _locked(handle) and folder.exists():
                atexit.register(_end, os.getpid(), folder)
                return _Cache(folder, handle)
            os.close(handle)


def _end(process: int, folder: Path) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove this user's folders that no process has locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(handle).st_uid == os.getuid() and _locked(handle):
                    remove(folder)
            finally:
                os.close(handle)


def _locked(handle: int) -> bool:
    """Take the lock of an open folder. Returns whether it was free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
