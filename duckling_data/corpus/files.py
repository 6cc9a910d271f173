"""One file of a corpus, and the proof that it did not change while it was read.

The file's state (size, modification time, change time, inode) is taken before the file is hashed, and compared after
the count of its stories, after each block that is parsed, and at the end of each pass. A user cannot set the change
time, and every write, rename and `utime` moves it, so what a stage read is what its record's SHA-256 says, also where
an edit was put back with the old modification time. Hashing again after a pass would miss that, and cost as much as
reading the file; a state costs microseconds. Where a file system keeps no change time, an edit is missed only if size,
modification time and inode are the old ones.

A file of a store is fetched to be read, and must then have the SHA-256 that it had when it was hashed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from duckling_data.base.errors import InputError
from duckling_data.base.errors import SourceChanged as SourceChanged
from duckling_data.base.files import open_regular
from duckling_data.corpus.readers import count_stories, read_blocks
from duckling_data.corpus.readers.blocks import Block, ReadOptions
from duckling_data.corpus.remote.cache import Held, held_as
from duckling_data.corpus.remote.store import Place, Remote, RemoteState
from duckling_data.workspace.source_record import Findings

if TYPE_CHECKING:
    import pyarrow as pa


class FileState(NamedTuple):
    """What changes when a file does; the times in nanoseconds."""

    size: int
    modified: int
    changed: int
    inode: int


def file_state(path: Path) -> FileState:
    """Return a regular file's state. Raises InputError for another kind of file, OSError."""
    with open_regular(path) as file:  # opened: a network file system then asks its server
        found = os.fstat(file.fileno())
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class _Local(NamedTuple):
    """Where a file is on this machine."""

    path: Path
    state: FileState
    held: Held | None
    """What keeps a fetched file there."""


@dataclass(frozen=True)
class CorpusFile:
    """One file of stories, hashed and counted. It can be pickled: another machine fetches a store's file itself."""

    path: Place
    name: str
    """Its name in the manifest: relative to the folder given, or to the hub's repository."""
    sha256: str
    stories: int
    state: FileState | RemoteState
    """Its state before it was hashed."""
    found: Findings = field(default_factory=Findings)
    """What was found when its stories were counted."""

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.state.size

    def here(self) -> CorpusFile:
        """Return the file as this process sees it: inodes and change times may differ between machines.

        Raises SourceChanged where its size or modification time is not that of the file that was hashed.
        """
        if isinstance(self.path, Remote):
            return self
        with contextlib.suppress(InputError, OSError):
            state = file_state(self.path)
            if state[:2] == self.state[:2]:
                return replace(self, state=state)
        raise _changed(self.path)

    def blocks(self, how: ReadOptions) -> Iterator[Block]:
        """Yield its parts. Raises SourceChanged, here or where a part is parsed, if the file is not what was hashed."""
        local = self._local()
        with self._unchanged(local):
            for block in read_blocks(local.path, how):
                yield replace(block, parse=partial(self._parse, block, local))

    def _parse(self, block: Block, local: _Local) -> pa.Array:
        with self._unchanged(local):
            return block.parse()

    def count(self, how: ReadOptions, found: Findings) -> int:
        """Return how many stories it holds; `found` as in `read_blocks`. Raises SourceChanged as `blocks` does."""
        local = self._local()
        with self._unchanged(local):
            return count_stories(local.path, how, found)

    def check_unchanged(self) -> None:
        """Raise SourceChanged if a file on this machine has another state; a store's is compared when it is read."""
        if not isinstance(self.path, Remote):
            self._compare(self._local())

    def _local(self) -> _Local:
        """Return where it is on this machine, fetched if it is a store's."""
        if isinstance(self.path, Remote):
            held = held_as(self.path, self.sha256)
            return _Local(held.path, file_state(held.path), held)
        assert isinstance(self.state, FileState)
        return _Local(self.path, self.state, None)

    @contextlib.contextmanager
    def _unchanged(self, local: _Local) -> Iterator[None]:
        """Raise SourceChanged at the end if the file has another state; it explains a refusal of what was read."""
        try:
            yield
        except InputError as error:
            self._compare(local)
            if local.held:  # its own name, not that of the copy
                raise type(error)(str(error).replace(str(local.path), str(self.path))) from error
            raise
        self._compare(local)

    def _compare(self, local: _Local) -> None:
        with contextlib.suppress(InputError, OSError):
            if file_state(local.path) == local.state:
                return
        raise _changed(self.path)


def _changed(path: Place) -> SourceChanged:
    return SourceChanged(
        f"{path}: changed while it was read; expected it to stay as it is until the command ends; "
        "run the command again."
    )
