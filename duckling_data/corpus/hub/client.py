"""What is asked of huggingface_hub: a file's description, its body from some byte on, a copy out of its cache.

The client gives the addresses, the token, the proxies, the time-outs (HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT),
the offline mode and the errors. The body is read here and not by its `hf_hub_download`, which keeps nothing of a file
when it is interrupted, waits for as long as a server says, and comes to no end with a server that cuts every body and
cannot go on in the middle.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from duckling_data.base.errors import InputError
from duckling_data.corpus.hub.dataset import HubFile
from duckling_data.corpus.hub.faults import CutShort, another_file, another_revision, no_hub, settings_fault

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Description:
    """What the hub says of a file."""

    sha256: str | None
    """None where a server in the hub's place does not say it."""


def describe(file: HubFile) -> Description:
    """Ask the hub for the file's description, so that nothing but the pinned file is downloaded.

    Raises InputError or OutsideError where it is another file or no hub; the client's own errors pass.
    """
    with _client() as hub:
        url = hub.hf_hub_url(file.repo, file.name, repo_type="dataset", revision=file.revision)
        found = hub.get_hf_file_metadata(url, timeout=hub.constants.HF_HUB_ETAG_TIMEOUT)
    if found.commit_hash is None:
        raise no_hub(file)
    if found.commit_hash != file.revision:
        raise another_revision(file, found.commit_hash)
    if found.size not in (None, file.size):
        raise another_file(file, f"{found.size:,} bytes", f"{file.size:,}")
    return Description(found.etag if SHA256.fullmatch(found.etag or "") else None)


def receive(file: HubFile, handle: BinaryIO, bar: Any) -> None:
    """Append to `handle` what it does not hold yet of the file, or all of it where the server cannot go on.

    Raises CutShort if the body ends early, OutsideError if it is another file's; the client's own errors pass.
    """
    start = handle.seek(0, os.SEEK_END)
    if start > file.size:  # not of our writing, or damaged
        start = handle.truncate(0)
    bar.update(start - bar.n)
    if start == file.size:
        return
    with _client() as hub:
        headers = hub.utils.build_hf_headers() | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with _get(hub, file, headers) as response:
            if start and not _goes_on(response, start, file):
                handle.truncate(0)
                bar.update(-bar.n)
                if response.status_code != 200:
                    raise CutShort(f"the hub cannot go on at byte {start:,}")
            _keep(response, handle, file, bar)
    if (end := handle.seek(0, os.SEEK_END)) != file.size:
        raise CutShort(f"cut short at {end:,} of {file.size:,} bytes")


def cached(file: HubFile) -> tuple[Path, str | None] | None:
    """Return the file in huggingface_hub's own cache, and its SHA-256 where the cache knows it; None if it has none."""
    with _client() as hub:
        found = hub.try_to_load_from_cache(file.repo, file.name, revision=file.revision, repo_type="dataset")
    if not isinstance(found, str) or not Path(found).is_file() or Path(found).stat().st_size != file.size:
        return None
    blob = Path(found).resolve().name  # the cache keeps a large file under its SHA-256
    return Path(found), blob if SHA256.fullmatch(blob) else None


@contextlib.contextmanager
def _get(hub: Any, file: HubFile, headers: dict[str, str]) -> Iterator[Any]:
    """Yield the answer to a request for the body, without its body. Raises the client's error for one that has none."""
    url = hub.hf_hub_url(file.repo, file.name, repo_type="dataset", revision=file.revision)
    timeout = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    # The redirect to the store is followed by the transport, which leaves the token behind where the host changes.
    stream = hub.utils.get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True)
    with stream as response:
        if response.status_code != 416:  # nothing lies at or after that byte, which `receive` looks into
            hub.utils.hf_raise_for_status(response)
        yield response


def _keep(response: Any, handle: BinaryIO, file: HubFile, bar: Any) -> None:
    """Append the body. Raises OutsideError as soon as it is more than the file; nothing of it is kept then."""
    for chunk in response.iter_bytes():
        if handle.seek(0, os.SEEK_END) + len(chunk) > file.size:
            handle.truncate(0)
            raise another_file(file, "more bytes", f"{file.size:,}")
        handle.write(chunk)
        bar.update(len(chunk))


def _goes_on(response: Any, start: int, file: HubFile) -> bool:
    """Return whether the body begins at the byte that was asked for. Raises OutsideError if it is another file's."""
    whole = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or whole is None:
        return False
    if whole[2] not in ("*", str(file.size)):
        raise another_file(file, f"{int(whole[2]):,} bytes", f"{file.size:,}")
    return int(whole[1]) == start


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    """Yield huggingface_hub, silent and ready. Raises InputError if the user's settings keep it from starting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("huggingface_hub.file_download")  # the package itself prints what goes wrong here
            import huggingface_hub

            huggingface_hub.utils.logging.set_verbosity_error()
            huggingface_hub.utils.get_session()  # reads the proxies and the certificates
        except Exception as error:
            fault: InputError = settings_fault(error)
            raise fault from None  # it may quote a proxy's password
        yield huggingface_hub
