"""What an error of the client means: whether it may pass, how long the hub asks to wait, and the one line it ends as.

Exit status 3 is the hub's, the network's or the disk's fault. It is 2 where only the user can mend it: a token that is
refused, a proxy that wants a login, an address or a variable that cannot be used, an offline mode that is on.

Both httpx (huggingface_hub 1) and httpx2 (2) may raise these errors, so the transport's are known by their names.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import DucklingError, InputError, OutsideError
from duckling_data.corpus.hub.dataset import HubFile
from duckling_data.corpus.hub.secrets import redacted

ADVICE = "Try again; or use --source demo (no network), --source PATH, or --offline with files already there."
OWN_SETTINGS = (
    *("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
"""The variables that decide how the client works."""

UNUSABLE = {"UnsupportedProtocol", "LocalProtocolError", "InvalidURL", "ValueError", "ImportError"}
"""What the client raises before it has asked anybody: an address, a token or a proxy that cannot be used."""


class CutShort(Exception):
    """A body ended early, or began at another byte than was asked for."""


def may_pass(error: Exception) -> bool:
    """Return whether another try may succeed: there was no whole answer, or the server had an error of its own."""
    if isinstance(error, CutShort):
        return True
    status = status_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    names = _names(error)
    if names & (UNUSABLE | {"OfflineModeIsEnabled", "TooManyRedirects"}) or of_the_disk(error):
        return False
    return bool(names & {"HTTPError", "OSError"}) and "CERTIFICATE_VERIFY_FAILED" not in str(error)


def asked_wait(error: Exception) -> float | None:
    """Return the seconds that the server asks to wait (`Retry-After`, or the hub's own `RateLimit`), if it does."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    if asked:
        try:
            until = parsedate_to_datetime(asked)
        except ValueError:
            return None
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    window = headers.get("RateLimit", "").rpartition("t=")[2].strip()
    return float(window) if status_of(error) == 429 and window.isascii() and window.isdigit() else None


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that the hub answered with, if it is one that went wrong."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def of_the_disk(error: Exception) -> bool:
    """Return whether the operating system refused to write; the client's errors of the network carry no errno."""
    return isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError) and bool(error.errno)


def reason(error: Exception) -> str:
    """Return what happened in a few words, without secrets."""
    status = status_of(error)
    if status is not None:
        return f"the hub answered {status}"
    names = _names(error)
    if "TimeoutException" in names:
        return "no answer in time (HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT)"
    if "TooManyRedirects" in names:
        return "redirected in a circle"
    return (redacted(str(error).strip().split("\n")[0])[:160] or type(error).__name__).rstrip(".")


def explained(error: Exception, file: HubFile, path: Path) -> DucklingError:
    """Return the error as one of ours: what failed, of which file and from where, and the ways out."""
    status, names = status_of(error), _names(error)
    if "OfflineModeIsEnabled" in names:
        forbids = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"
        return InputError(f"{file.repo}: {forbids} forbids the download of {file.name}. {ADVICE}")
    if of_the_disk(error):
        try:
            with disk_errors(path):
                raise error
        except DucklingError as failure:
            return failure
    if names & UNUSABLE:
        return settings_fault(error)
    if status in (401, 403) and _sent_a_token(error):
        return InputError(
            f"{file.repo}: {endpoint()} refuses your token ({status}) for {file.name}. Renew or unset HF_TOKEN, or "
            "run `hf auth login`; TinyStories needs no token."
        )
    if status == 407 or ("ProxyError" in names and "407" in str(error)):
        return InputError(f"{file.repo}: your proxy wants a login (407). Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY.")
    return OutsideError(
        f"{file.repo}: {file.name} could not be downloaded from {endpoint()} ({reason(error)}). {ADVICE}"
    )


def settings_fault(error: Exception) -> InputError:
    """Return the line for a client that cannot work with the user's settings, naming those that are set."""
    named = [name for name in OWN_SETTINGS if name in os.environ]
    return InputError(
        f"the hub's client cannot use your settings ({redacted(_first_line(error))}). Check "
        f"{', '.join(named) or 'the network settings of this machine'}; or use --source demo or --source PATH."
    )


def no_hub(file: HubFile) -> DucklingError:
    """Return the line for an answer that no hub gives: the user's endpoint, or something in between."""
    if os.environ.get("HF_ENDPOINT"):
        return InputError(f"HF_ENDPOINT {endpoint()}: not a Hugging Face hub, it names no revision. Check or unset it.")
    return OutsideError(
        f"{file.repo}: something else than the hub answers at {endpoint()} for {file.name}. Check proxies and log-in "
        "pages of the network, or use --source demo or --source PATH."
    )


def another_revision(file: HubFile, found: str) -> OutsideError:
    """Return the line for a hub that answers with another revision than was asked for."""
    return OutsideError(
        f"{file.repo}: {endpoint()} answers with revision {redacted(found)[:40]} of {file.name}, expected "
        f"{file.revision}. Check HF_ENDPOINT and proxies, or use --source demo or --source PATH."
    )


def another_file(file: HubFile, found: str, expected: str) -> OutsideError:
    """Return the line for a file that is not the pinned one."""
    return OutsideError(
        f"{file.repo}: {file.name} has {found} at {endpoint()}, expected {expected}. It is not the pinned "
        "file: check HF_ENDPOINT and proxies, or use --source demo or --source PATH."
    )


def endpoint() -> str:
    """Return the hub's address, without a user and a password."""
    from huggingface_hub import constants

    return redacted(constants.ENDPOINT)


def _first_line(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return f"{type(error).__name__}: a character that no header may have"
    return (str(error).strip().split("\n")[0][:160] or type(error).__name__).rstrip(".")


def _sent_a_token(error: Exception) -> bool:
    request = getattr(getattr(error, "response", None), "request", None)
    return request is not None and "authorization" in request.headers


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
