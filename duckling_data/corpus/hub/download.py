"""One file from the hub to its path: copied from the client's cache, or received in as many tries as it takes.

A body is received into `.cache/NAME.SHA.incomplete`, which a later try or command resumes. What may pass by itself (no
connection, too many requests, an error of the server, a body that ends early or stalls) is tried again after a wait
that is printed. A try that brought a hundredth of the file or more starts the counting of tries anew.

huggingface_hub gives the addresses, the token, the proxies, the time-outs, the offline mode and the errors. Of its own
ways to receive a body (2.4) `hf_hub_download` keeps nothing when it is interrupted; `http_get` loses up to 10 MB at a
cut, waits silently for as long as `Retry-After` says, never gives up a server that cuts every body and cannot resume,
and checks neither where a resumed body begins nor that it ends at the expected size. Hence `_receive`.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import DucklingError, InputError
from duckling_data.base.files import (
    flush,
    open_to_append,
    own_folder,
    read_bytes,
    remove,
    replacing,
    sha256_file,
    sync_directory,
    write_all,
)
from duckling_data.base.progress import Reporter
from duckling_data.corpus.hub import errors
from duckling_data.corpus.hub.dataset import HubFile

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries to get a file; after the last of them, with nothing new received, it is given up."""
LONGEST_WAIT = 300.0
"""Seconds to wait at most where the hub asks for a wait (`Retry-After`); its own limits last five minutes."""
CACHE, INCOMPLETE, REFUSED = ".cache", ".incomplete", ".refused"
SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")
Learn = Callable[[str, str], None]


def get_file(file: HubFile, folder: Path, reporter: Reporter, known: str | None, learn: Learn) -> None:
    """Bring the file into `folder`; `known` is its SHA-256 if that was learned before. Raises as `fetch` does."""
    reporter.say(f"download     {file.repo} {file.name} ({file.size / 1e6:,.1f} MB)")
    *inside, _ = file.name.split("/")
    own_folder(folder.parent, folder.name, *inside)
    own_folder(folder, CACHE, *inside)
    if not _copied_from_cache(file, folder / file.name, reporter, known, learn):
        _download(file, folder, reporter, known, learn)


def get_content(file: HubFile, folder: Path, limit: int, reporter: Reporter, *, offline: bool) -> bytes:
    """Return the content of a file whose size is not pinned, at most `limit` bytes, received by way of `folder`.

    Offline it must be in huggingface_hub's own cache. Raises as `fetch` does, and InputError for a larger file.
    """
    cached = _client().try_to_load_from_cache(file.repo, file.name, revision=file.revision, repo_type=file.kind)
    if isinstance(cached, str):
        reporter.say(f"download     {file.repo} {file.name}: from {cached}")
        return read_bytes(Path(cached), limit)
    if offline:
        raise InputError(
            f"{file.repo}: {file.name} at {file.revision} is not on this machine, and --offline forbids the download. "
            f"Run once without --offline, {file.instead}"
        )
    path = folder / file.name
    found = _retried(lambda: _metadata(file), file, path, reporter)
    if found.size is None or found.size > limit:
        size = "no size" if found.size is None else f"{found.size:,} bytes"
        raise InputError(f"{file.repo}: {file.name} has {size}, expected at most {limit:,} bytes, {file.instead}")
    try:
        get_file(replace(file, size=found.size), folder, reporter, None, lambda name, sha256: None)
        return read_bytes(path, limit)
    finally:
        remove(path)


def _copied_from_cache(file: HubFile, path: Path, reporter: Reporter, known: str | None, learn: Learn) -> bool:
    """Copy the file out of huggingface_hub's own cache, if it holds a good one. Returns whether it did."""
    name = _client().try_to_load_from_cache(file.repo, file.name, revision=file.revision, repo_type=file.kind)
    if not isinstance(name, str) or size_of(cached := Path(name)) != file.size:
        return False
    blob = cached.resolve().name  # the cache names a large file by its SHA-256
    with reporter.bar("hash", file.size, "B") as bar:
        found = sha256_file(cached, bar.update)
    if found != (known or (blob if SHA256.fullmatch(blob) else found)):
        reporter.say(f"download     {cached}: damaged, not used")
        return False
    learn(file.name, found)
    with replacing(path) as copy, cached.open("rb") as original:
        shutil.copyfileobj(original, copy, 1 << 20)
    reporter.say(f"download     copied from {cached}")
    return True


def _download(file: HubFile, folder: Path, reporter: Reporter, known: str | None, learn: Learn) -> None:
    path = folder / file.name
    described = _retried(lambda: _described(file), file, path, reporter)
    if described and known and described != known:
        raise errors.another_file(file, f"SHA-256 {described}", f"{known}, as it was when it was first downloaded")
    expected = described or known
    if expected is None:
        reporter.say(f"download     {errors.endpoint()} gives no SHA-256 of {file.name}: only its size is checked")
    else:
        learn(file.name, expected)
    # Named by its content, so that only the same file is ever resumed.
    incomplete = folder / CACHE / f"{file.name}.{(expected or file.revision)[:16]}{INCOMPLETE}"
    if resumed := size_of(incomplete):
        reporter.say(f"download     resumed at {resumed / 1e6:,.1f} MB")
    found = _received(file, incomplete, reporter)
    if resumed and expected not in (None, found):
        # What an earlier command left may have been damaged since: once more, from the first byte.
        reporter.say(f"download     what was there is damaged (SHA-256 {found}); starting again")
        incomplete.unlink()
        found = _received(file, incomplete, reporter)
    if expected not in (None, found):
        aside = set_aside(incomplete, path)
        raise errors.another_file(file, f"SHA-256 {found} (kept as {aside}, not used)", str(expected))
    learn(file.name, found)
    with disk_errors(path):
        flush(incomplete)
        incomplete.replace(path)
        sync_directory(path.parent)


def _received(file: HubFile, path: Path, reporter: Reporter) -> str:
    """Receive what `path` lacks of the file. Returns the SHA-256 of the whole."""
    with reporter.bar("download", file.size, "B") as bar:
        _retried(lambda: _receive(file, path, bar), file, path, reporter)
    with reporter.bar("hash", file.size, "B") as bar:
        return sha256_file(path, bar.update)


def _retried(work: Callable[[], T], file: HubFile, path: Path, reporter: Reporter) -> T:
    """Return what `work` returns, called again after an error that may pass. `path` is the file that grows by it."""
    failed, reached = 0, size_of(path)
    while True:
        try:
            return work()
        except DucklingError:
            raise
        except Exception as error:
            if size_of(path) - reached >= max(1, file.size // 100):
                failed, reached = 0, size_of(path)
            if not errors.may_pass(error) or failed >= len(WAITS):
                raise errors.explained(error, file) from errors.presentable(error)
            wait = max(WAITS[failed], min(errors.asked_wait(error), LONGEST_WAIT))
            failed += 1
            reporter.say(f"download     failed: {errors.reason(error)}; trying again in {wait:.0f} s")
            time.sleep(wait)


def _metadata(file: HubFile) -> Any:
    """Return what the hub says of the file. Raises InputError or OutsideError where it is no hub, or another revision.

    The client's own errors are raised as they are.
    """
    hub = _client()
    found = hub.get_hf_file_metadata(_url(hub, file), timeout=hub.constants.HF_HUB_ETAG_TIMEOUT)
    if found.commit_hash is None:
        raise errors.no_hub(file)
    if found.commit_hash != file.revision:
        raise errors.another_file(file, f"revision {found.commit_hash[:40]}", file.revision)
    return found


def _described(file: HubFile) -> str | None:
    """Return the SHA-256 that the hub says of the file, None where a mirror does not say it.

    Raises as `_metadata` does, and OutsideError where it has another size.
    """
    found = _metadata(file)
    if found.size not in (None, file.size):
        raise errors.another_file(file, f"{found.size:,} bytes", f"{file.size:,}")
    return found.etag if SHA256.fullmatch(found.etag or "") else None


def _receive(file: HubFile, path: Path, bar: Any) -> None:
    """Append to `path` what it lacks of the file, or write all of it anew where the server cannot resume.

    Raises CutShort if the body ends early, OutsideError if it is longer than the file, and the client's own errors.
    """
    start = size_of(path) if size_of(path) <= file.size else 0  # a longer one is damaged
    bar.update(start - bar.n)
    if start == file.size:
        return
    hub = _client()
    headers = hub.utils.build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    # The redirect to the store is followed by the transport, which leaves the token behind where the host changes.
    stream = hub.utils.get_session().stream
    with stream("GET", _url(hub, file), headers=headers, timeout=timeout, follow_redirects=True) as response:
        if response.status_code != 416:  # the file has no such byte
            hub.utils.hf_raise_for_status(response)
        begins = response.headers.get("Content-Range", "")
        if not (response.status_code == 206 and begins.startswith(f"bytes {start}-")):
            bar.update(-bar.n)
            path.unlink(missing_ok=True)
            if response.status_code != 200:
                raise errors.CutShort(f"the hub cannot resume at byte {start:,}")
        with disk_errors(path):
            handle = open_to_append(path)
        with handle:
            for chunk in response.iter_bytes():
                if (end := handle.tell()) + len(chunk) > file.size:
                    path.unlink()
                    raise errors.another_file(file, "more bytes", f"{file.size:,}")
                with disk_errors(path):
                    write_all(handle, chunk)
                bar.update(len(chunk))
    if (end := size_of(path)) != file.size:
        raise errors.CutShort(f"the body ended after {end:,} bytes, expected {file.size:,}")


def _url(hub: Any, file: HubFile) -> str:
    return str(hub.hf_hub_url(file.repo, file.name, repo_type=file.kind, revision=file.revision))


def _client() -> Any:
    """Return huggingface_hub, silent and ready. Raises InputError if the user's settings keep it from starting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import huggingface_hub.file_download  # as an attribute, a failing import of it would print a traceback

            hub: Any = huggingface_hub
            hub.utils.logging.set_verbosity_error()
            hub.utils.get_session()  # reads the proxies and the certificates
        except Exception as error:
            raise errors.settings_fault(error) from None  # it may quote a proxy's password
    return hub


def size_of(path: Path) -> int:
    """Return a file's bytes, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def set_aside(path: Path, place: Path) -> Path:
    """Rename a refused file to a free name beside `place`, which nothing reads, and return that name."""
    names = (place.with_name(f"{place.name}{REFUSED}{-number if number > 1 else ''}") for number in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    with disk_errors(aside):
        path.rename(aside)
    return aside
