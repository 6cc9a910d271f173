"""What an error of huggingface_hub means: whether another try may succeed, and its one line, without secrets.

OutsideError is the hub's or the network's fault, InputError one that only the user can mend: a token, a proxy, an
address, an offline mode. Both httpx (huggingface_hub 1) and httpx2 (2) may raise these errors, so the transport's are
known by their names. They quote addresses and headers as they are: a proxy's password, a signed address, the token.
"""

from __future__ import annotations

import os
import re
import traceback
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from duckling_data.base.errors import DucklingError, InputError, OutsideError
from duckling_data.corpus.hub.dataset import HubFile

ADVICE = "Try again; or use --source demo (no network), --source PATH, or --offline with files already there."
INSTEAD = "or use --source demo or --source PATH."
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
SETTINGS = ("HF_ENDPOINT", "HF_TOKEN", *TIMEOUTS, "SSL_CERT_FILE", "SSL_CERT_DIR", *PROXIES, "NO_PROXY", "no_proxy")
"""The variables that decide how the client works."""
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Those that hold a secret, of the hub and of S3."""
UNUSABLE = {"UnsupportedProtocol", "LocalProtocolError", "InvalidURL", "ValueError", "ImportError"}
"""What the client raises before it sends a request: an address, a token or a proxy that cannot be used."""
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/?#'\"]*@)?(?P<rest>[^\s?#'\"]*)(?P<query>[?#][^\s'\"]*)?"
)
_LOGIN = re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\",]+")
_TOKEN = re.compile(r"\bhf_(?:oauth_\S{20,}|[A-Za-z0-9]{20,})")
"""What the hub's tokens look like; shorter names that begin so are the client's own functions."""


class CutShort(Exception):
    """A body ended early, or began at another byte than was asked for."""


def may_pass(error: Exception) -> bool:
    """Return whether another try may succeed: there was no whole answer, or the server had an error of its own."""
    if (status := _status(error)) is not None:
        return status in (408, 429) or status >= 500
    names = _names(error)
    if names & (UNUSABLE | {"OfflineModeIsEnabled", "TooManyRedirects"}) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    return bool(names & {"CutShort", "HTTPError", "ConnectionError", "TimeoutError"})


def asked_wait(error: Exception) -> float:
    """Return the seconds that the server asks to wait: `Retry-After`, else the hub's own `RateLimit`, else 0."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "").strip()
    if not asked and _status(error) == 429:
        asked = headers.get("RateLimit", "").rpartition("t=")[2].strip()
    if re.fullmatch("[0-9]+", asked):
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    return (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def reason(error: Exception) -> str:
    """Return what happened in a few words, without secrets."""
    if (status := _status(error)) is not None:
        return f"the hub answered {status}"
    if "TimeoutException" in _names(error):
        return f"no answer in time ({', '.join(TIMEOUTS)})"
    return (redacted(str(error).strip().split("\n")[0])[:160] or type(error).__name__).rstrip(".")


def explained(error: Exception, file: HubFile) -> DucklingError:
    """Return the error as one of ours: what failed, of which file and from where, and what to do."""
    status, names = _status(error), _names(error)
    if "OfflineModeIsEnabled" in names:
        forbids = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"
        return InputError(f"{file.repo}: {forbids} forbids the download of {file.name}. {_advice(file)}")
    if names & UNUSABLE:
        return settings_fault(error)
    request = getattr(getattr(error, "response", None), "request", None)
    if status in (401, 403) and request is not None and "authorization" in request.headers:
        return InputError(
            f"{file.repo}: {endpoint()} refuses your token ({status}) for {file.name}. Renew or unset HF_TOKEN, or "
            f"run `hf auth login`{'; TinyStories needs no token' * (file.kind == 'dataset')}."
        )
    if status == 407 or ("ProxyError" in names and "407" in str(error)):
        return InputError(f"{file.repo}: your proxy wants a login (407). Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY.")
    return OutsideError(
        f"{file.repo}: {file.name} could not be downloaded from {endpoint()} ({reason(error)}). {_advice(file)}"
    )


def _advice(file: HubFile) -> str:
    gated = "Try again, with HF_TOKEN set if the repository is gated"
    return ADVICE if file.kind == "dataset" else f"{gated}; {file.instead}"


def settings_fault(error: Exception) -> InputError:
    """Return the line for a client that cannot work with the user's settings, naming those that are set."""
    check = ", ".join(name for name in SETTINGS if name in os.environ) or "the network settings of this machine"
    return InputError(f"the hub's client cannot use your settings ({reason(error)}). Check {check}; {INSTEAD}")


def no_hub(file: HubFile) -> DucklingError:
    """Return the line for an answer that no hub gives: the user's endpoint, or something in between."""
    if os.environ.get("HF_ENDPOINT"):
        return InputError(f"HF_ENDPOINT {endpoint()}: not a Hugging Face hub, it names no revision. Check or unset it.")
    return OutsideError(
        f"{file.repo}: something else than the hub answers at {endpoint()} for {file.name}. Check proxies and log-in "
        f"pages of the network, {file.instead}"
    )


def another_file(file: HubFile, found: str, expected: str) -> OutsideError:
    """Return the line for a file that is not the pinned one."""
    return OutsideError(
        f"{file.repo}: {file.name} has {redacted(found)} at {endpoint()}, expected {expected}. It is not the pinned "
        f"file: check HF_ENDPOINT and proxies, {file.instead}"
    )


def endpoint() -> str:
    """Return the hub's address, without secrets."""
    from huggingface_hub import constants

    return redacted(constants.ENDPOINT)


def redacted(text: str) -> str:
    """Return the text without tokens, and its addresses without users, passwords and queries."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    text = _LOGIN.sub(r"\1 ***", text)
    text = _ADDRESS.sub(lambda address: address["scheme"] + address["rest"] + ("?…" if address["query"] else ""), text)
    return _TOKEN.sub("hf_***", text)


def presentable(error: BaseException) -> BaseException | None:
    """Return the error, for `raise … from`, if its traceback holds no secret; else None, so that --debug shows none."""
    text = "".join(traceback.format_exception(error))
    return error if redacted(text) == text else None


def _secrets() -> list[str]:
    """Return the secrets of the environment, the longest first."""
    found = {os.environ.get(name, "").strip() for name in TOKENS}
    for name in ("HF_ENDPOINT", *PROXIES):
        # Not by urlsplit: a password may hold what no address should, and the client then quotes a part of it.
        login, _, _ = os.environ.get(name, "").partition("://")[2].rpartition("@")
        user, colon, password = login.partition(":")
        secret = password if colon else user
        found |= {secret, unquote(secret), *re.split("[/?#@]", secret)}
    return sorted((secret for secret in found if len(secret) > 3), key=len, reverse=True)


def _status(error: Exception) -> int | None:
    """Return the HTTP status that the hub answered with, if the error is of that kind."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
