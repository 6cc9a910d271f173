"""One file from the hub into its place: asked for, received in as many tries as it takes, compared, renamed.

What may pass by itself (no connection, too many requests, an error of the server, a body cut short or standing still)
is tried again in the open, after a wait that is said. A try that brought a hundredth of the file or more earns the full
number of tries again: so a bad line is outlived, and a server that gets nowhere is given up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import DucklingError, OutsideError
from duckling_data.base.files import sha256_file
from duckling_data.base.progress import Reporter
from duckling_data.corpus.hub import client
from duckling_data.corpus.hub.dataset import HubFile
from duckling_data.corpus.hub.faults import ADVICE, another_file, asked_wait, endpoint, explained, may_pass, reason
from duckling_data.corpus.hub.place import incomplete_path, opened, put_in_place, set_aside
from duckling_data.corpus.hub.secrets import presentable

ENOUGH = 100
"""A try that brought one part in so many of the file starts the counting of tries anew."""

Learn = Callable[[str, str], None]


@dataclass
class Patience:
    """How often and after which waits a file is tried again."""

    waits: tuple[float, ...]
    """Seconds before each further try."""
    longest: float
    """Seconds that are waited at the most where the hub asks for a wait."""
    file: HubFile
    reporter: Reporter
    _failed: int = field(default=0, init=False)
    _reached: int = field(default=0, init=False)

    def after(self, error: Exception, path: Path, reached: int = 0) -> None:
        """Wait before the next try, `reached` bytes being there. Raises what the error means if there is to be none."""
        if reached - self._reached >= max(1, self.file.size // ENOUGH):
            self._failed, self._reached = 0, reached
        if not may_pass(error) or self._failed >= len(self.waits):
            raise explained(error, self.file, path) from presentable(error)
        wait = min(max(self.waits[self._failed], asked_wait(error) or 0.0), max(self.longest, self.waits[self._failed]))
        self._failed += 1
        self.reporter.say(f"download     failed: {reason(error)}; trying again in {wait:.0f} s")
        time.sleep(wait)


def download(
    file: HubFile, folder: Path, known: str | None, learn: Learn, patience: Patience, reporter: Reporter
) -> None:
    """Bring the file into `folder`. `known` is its SHA-256 if that was learned before; `learn` is told it.

    Raises as `fetch` does.
    """
    place = folder / file.name
    said = _described(file, place, patience).sha256
    if said and known and said != known:
        raise another_file(file, f"SHA-256 {said}", f"{known}, as it was when it was first downloaded")
    expected = said or known
    if expected is None:
        reporter.say(f"download     {endpoint()} gives no SHA-256 of {file.name}: only its size is checked")
    else:
        learn(file.name, expected)
    incomplete = incomplete_path(folder, file, expected)
    with opened(incomplete) as handle:
        resumed = handle.seek(0, os.SEEK_END)
        if resumed:
            reporter.say(f"download     goes on at {resumed / 1e6:,.1f} MB")
        while True:
            with reporter.bar("download", file.size, "B") as bar:
                _received(file, handle, bar, patience, incomplete)
            found = sha256_file(incomplete)
            if expected in (None, found):
                break
            if not resumed:
                raise _wrong_bytes(file, found, expected, set_aside(incomplete, place))
            # What an earlier command left may have been damaged since: once more, from the first byte.
            reporter.say(f"download     what was there is damaged (SHA-256 {found}); starting again")
            handle.truncate(0)
            resumed = 0
        put_in_place(incomplete, place)
    if expected is None:
        learn(file.name, found)


def copy_from_cache(file: HubFile, folder: Path, known: str | None, learn: Learn, reporter: Reporter) -> bool:
    """Copy the file out of huggingface_hub's own cache, if it holds a good one. Returns whether it did."""
    found = client.cached(file)
    if found is None:
        return False
    source, said = found
    expected = known or said
    incomplete = incomplete_path(folder, file, "cached")
    with opened(incomplete) as handle:
        handle.truncate(0)
        with source.open("rb") as original:
            while data := original.read(1 << 20):
                with disk_errors(incomplete):
                    handle.write(data)
        with disk_errors(incomplete):
            handle.flush()
            os.fsync(handle.fileno())
        digest = sha256_file(incomplete)
        good = expected in (None, digest)
        if good:
            learn(file.name, digest)
            put_in_place(incomplete, folder / file.name)
        else:
            incomplete.unlink()
    reporter.say(f"download     copied from {source}" if good else f"download     {source}: damaged, not used")
    return good


def _described(file: HubFile, place: Path, patience: Patience) -> client.Description:
    while True:
        try:
            return client.describe(file)
        except DucklingError:
            raise
        except Exception as error:
            patience.after(error, place)


def _received(file: HubFile, handle: BinaryIO, bar: Any, patience: Patience, path: Path) -> None:
    """Receive the file until it is whole and on the disk."""
    while True:
        try:
            client.receive(file, handle, bar)
            handle.flush()
            os.fsync(handle.fileno())
            return
        except DucklingError:
            raise
        except Exception as error:
            patience.after(error, path, path.stat().st_size)


def _wrong_bytes(file: HubFile, found: str, expected: str | None, aside: Path) -> OutsideError:
    return OutsideError(
        f"{file.repo}: {file.name} came with SHA-256 {found} from {endpoint()}, expected {expected}. "
        f"It is kept as {aside} and not used. {ADVICE}"
    )
