"""Files of a store, by URL, through fsspec: what a store says of them, getting them, and its errors in one line.

Credentials are the environment's, as s3fs, gcsfs and huggingface_hub take them. A URL that holds some is refused, and
not shown. What may pass by itself (no connection, an error of the server, a body cut short) is tried again.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from duckling_data.base.disk import check_utf8
from duckling_data.base.errors import InputError, SourceChanged
from duckling_data.base.progress import SILENT, Reporter, nothing
from duckling_data.corpus.hub.errors import CutShort
from duckling_data.corpus.remote.tries import CREDENTIALS, retried

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
NEEDS = {"s3": ("s3", "s3fs"), "gs": ("gs", "gcsfs"), "http": ("http", "aiohttp"), "https": ("http", "aiohttp")}
"""The extra of Duckling's that a kind of URL needs, and its package."""
KINDS = ("s3", "gs", "hf", "https", "http", "memory", "file")
TIMEOUT = 60.0
"""Seconds without a byte after which a web server is given up; a whole body may take any time."""
TAGS = ("ETag", "etag", "md5Hash", "blob_id", "Content-MD5", "Digest")
"""What stores call that which changes with a file's content."""
LONGEST_TAG = 200
PART = 50 << 20
"""Bytes in a part of a large upload to S3, of whose parts' MD5 its checksum is made."""


class RemoteState(NamedTuple):
    """What a store says of a file's content."""

    size: int
    tag: str
    """A checksum or ETag, with its name; empty where the store gives none."""


@dataclass(frozen=True)
class Remote:
    """A file of a store, as it was listed."""

    url: str
    state: RemoteState

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its path."""
        name = self.url.rpartition("/")[2]
        return unquote(name) if self.url.startswith("http") else name

    @property
    def suffixes(self) -> list[str]:
        """The endings of its name, as a path's."""
        return PurePosixPath(self.name).suffixes


Place = Path | Remote
"""Where a file is."""


def kind_of(text: str) -> str | None:
    """Return the kind of URL that a text is, such as `s3`; None for a path."""
    found = URL.match(text)
    return found[1].lower() if found else None


def check_url(url: str, what: str) -> None:
    """Raise InputError for a URL of another kind than KINDS, and for one that may hold a secret: it is not shown."""
    found = URL.match(url)
    assert found, url
    kind, rest = found[1], found[2]
    place = rest.partition("/")[0]
    where = f"{what} {kind}://…"
    if kind not in KINDS:
        known = ", ".join(f"{one}://" for one in KINDS if one != "memory")
        raise InputError(f"{where}: not a kind of URL that is read; expected {known} or a path; download it first.")
    login = "@" in (rest if kind.startswith("http") else place) or not re.fullmatch(r"[^:]*|.*:[0-9]+", place)
    if login or set("?#") & set(rest):
        held = "a user or password" if login else "a query, in which a secret may be"
        raise InputError(
            f"{where}: holds {held}; expected an address alone; credentials are taken from the environment"
            + (f": {CREDENTIALS[kind]}." if kind in CREDENTIALS else ".")
        )
    check_utf8(url, what)
    if "::" in rest or not place:
        raise InputError(f"{url}: not the address of a file or folder; expected {kind}://PLACE/PATH; correct it.")


PINNED = re.compile(r"hf://.*@[0-9a-f]{40}(/.*)?", re.DOTALL)
"""A commit on the hub, in which nothing changes."""
_opened: dict[tuple[str, int, int], Any] = {}
_lock = threading.Lock()


def opened(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL and the path in it. Raises InputError where none is."""
    kind = kind_of(url) or "file"
    if kind != "file":
        check_url(url, "the URL")
    with _lock:
        # A forked child cannot use its parent's connections, nor a thread another's HfFileSystem.
        key = (kind, os.getpid(), threading.get_ident() if kind == "hf" else 0)
        if key not in _opened:
            _opened[key] = _made(kind)
        store = _opened[key]
    return store, store._strip_protocol(url)


def _made(kind: str) -> Any:
    try:
        import fsspec

        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if kind in ("http", "https"):
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True, "auto_decompress": False}
            options["headers"] = {"Accept-Encoding": "identity"}
        if kind == "file":
            options["auto_mkdir"] = True
        return fsspec.filesystem(kind, **options)
    except ImportError as error:
        extra, package = NEEDS.get(kind, ("", "a package"))
        raise InputError(
            f"{kind}://: needs {package}, which is not installed; expected the extra duckling[{extra}]; "
            f"run `pip install 'duckling[{extra}]'`."
        ) from error


def described(url: str) -> dict[str, Any]:
    """Return what the store says of a file or folder now, as fsspec's `info`. Raises whatever the store does."""
    store, path = opened(url)
    if not PINNED.fullmatch(url):
        store.invalidate_cache()
    return dict(store.info(path))


def state_of(url: str, info: Mapping[str, Any]) -> RemoteState:
    """Return a file's state out of what its store says. Raises InputError for a store that tells no length."""
    if not isinstance(size := info.get("size"), int):
        raise InputError(
            f"{url}: its server does not say how long it is; expected a length, as a file cut short would look whole; "
            "download it, and give its path."
        )
    tag = next((f"{key} {info[key]}" for key in TAGS if info.get(key)), "")
    # A weak ETag is the same for bytes that only mean the same.
    return RemoteState(size, "" if ' W/"' in tag or len(tag) > LONGEST_TAG else tag)


def get(remote: Remote, path: Path, done: Callable[[int], object] = nothing, reporter: Reporter = SILENT) -> None:
    """Write a file of a store to `path`: all of it, as it was listed. `done` is told of bytes that came.

    Raises SourceChanged where it is another file by now, and as `retried` does.
    """
    from fsspec import Callback

    url, state, came = remote.url, remote.state, 0

    def work() -> None:
        nonlocal came

        class Told(Callback):  # type: ignore[misc]
            """Tells of each piece that comes."""

            def relative_update(self, inc: int = 1) -> None:
                nonlocal came
                came += inc
                done(inc)
                if came > state.size:  # of a body without an end
                    raise CutShort(f"more bytes came than the {state.size:,} that were listed")

        came = 0
        store, place = opened(url)
        try:
            if kind_of(url) == "hf":  # with a callback of another's it takes a slower way
                store.get_file(place, str(path))
            else:
                store.get_file(place, str(path), callback=Told())
            _refuse_changed(remote)
            if (size := path.stat().st_size) != state.size:
                raise CutShort(f"{size:,} of {state.size:,} bytes came")
            done(state.size - came)
        except BaseException as error:
            done(-came)
            if isinstance(error, CutShort):
                _refuse_changed(remote)
            raise

    retried(work, url, "read", reporter, path)


def _refuse_changed(remote: Remote) -> None:
    """Raise SourceChanged where a file is not as it was listed."""
    if state_of(remote.url, described(remote.url)) != remote.state:
        raise SourceChanged(
            f"{remote}: changed since it was listed; expected it to stay as it is until the command ends; "
            "run the command again."
        )
