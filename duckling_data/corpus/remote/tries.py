"""What a store's errors mean: whether another try may succeed, and the one line, without secrets, where none does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from duckling_data.base.disk import FULL, disk_errors
from duckling_data.base.errors import DucklingError, InputError, OutsideError, SourceMissing
from duckling_data.base.progress import SILENT, Reporter
from duckling_data.corpus.hub.errors import presentable, redacted

T = TypeVar("T")

CREDENTIALS = {
    "s3": "AWS_PROFILE or AWS_ACCESS_KEY_ID (FSSPEC_S3_ANON=true for a public bucket)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
}
"""Where the packages look for credentials."""
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries; after the last of them a store is given up."""
PERMANENT = {"FileNotFoundError", "PermissionError", "FileExistsError", "IsADirectoryError", "NotADirectoryError"}
UNUSABLE = {"ValueError", "ImportError", "NotImplementedError", "OfflineModeIsEnabled"}
REFUSED = {"PermissionError", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "GatedRepoError"}
PASSING = {"OSError", "TimeoutError", "ClientError", "HTTPError", "BotoCoreError", "CutShort"}


def retried(
    work: Callable[[], T], url: str, what: str, reporter: Reporter = SILENT, path: Path | None = None
) -> T:  # fmt: skip
    """Return what `work` returns, called again after an error that may pass. `path` is the file that it writes.

    Raises SourceMissing for what is not there, InputError for refused access and for settings that cannot be used,
    OutsideError where the store or the network, or the disk at `path`, fails.
    """
    for wait in (*WAITS, None):
        try:
            return work()
        except DucklingError:
            raise
        except Exception as caught:
            error = _cause(caught)
            if path is not None and isinstance(error, OSError) and error.errno in FULL:
                with disk_errors(path, "set TMPDIR to a folder on another disk"):
                    raise error from None
            if wait is None or not _may_pass(error):
                raise _explained(error, url, what) from presentable(error)
            reporter.say(f"{'store':<12} {url}: {_reason(error)}; trying again in {wait:.0f} s")
            time.sleep(wait)
    raise AssertionError


def _cause(error: Exception) -> Exception:
    """Return what a web server or the connection to it said, where fsspec takes all of that for a missing file."""
    inner = error.__cause__ if isinstance(error, FileNotFoundError) else None
    web = isinstance(inner, TimeoutError) or type(inner).__module__.startswith("aiohttp")
    return inner if isinstance(inner, Exception) and web else error


def _status(error: Exception) -> int | None:
    """Return the HTTP status that a store answered with, where the error holds one."""
    response = getattr(error, "response", None)
    found = (getattr(error, "status", None), getattr(error, "code", None), getattr(response, "status_code", None))
    return next((status for status in found if isinstance(status, int)), None)


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _may_pass(error: Exception) -> bool:
    if (status := _status(error)) is not None:
        return status in (408, 429) or status >= 500
    if _names(error) & (PERMANENT | UNUSABLE | REFUSED) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    return bool(_names(error) & PASSING)


def _reason(error: Exception) -> str:
    if (status := _status(error)) is not None:
        return f"the server answered {status}"
    first = redacted(str(error).strip().split("\n")[0])[:160].rstrip(".")
    return first or type(error).__name__


def _explained(error: Exception, url: str, what: str) -> DucklingError:
    kind, names, status = url.partition("://")[0], _names(error), _status(error)
    if status in (404, 410) or (status is None and "FileNotFoundError" in names):
        return SourceMissing(f"{url}: no such file or folder; expected one that is there; correct the URL.")
    if status in (401, 403) or names & REFUSED:
        return InputError(
            f"{url}: access is refused ({_reason(error)}); expected a right to it; "
            f"check {CREDENTIALS.get(kind, '~/.netrc')}."
        )
    if names & (UNUSABLE | PERMANENT):
        return InputError(f"{url}: cannot be {what} ({_reason(error)}); expected a URL that can; correct it.")
    return OutsideError(f"{url}: could not be {what} ({_reason(error)}); expected an answer; run the command again.")
