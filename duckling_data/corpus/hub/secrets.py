"""Keeps tokens, passwords and signed addresses out of what a person reads.

The client's errors quote addresses and headers as they are: a proxy's address with its password, a store's address with
a signature that opens the file, a header with the token.
"""

from __future__ import annotations

import os
import re
import traceback
from urllib.parse import unquote

HIDDEN = "***"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
ADDRESS_VARIABLES = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/?#'\"]*@)?(?P<rest>[^\s?#'\"]*)(?P<query>[?#][^\s'\"]*)?"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\",]+")
_TOKEN = re.compile(r"\bhf_(?:oauth_\S{20,}|[A-Za-z0-9]{20,})")
"""What the hub's tokens look like; shorter names that begin so are the client's own functions."""


def redacted(text: str) -> str:
    """Return the text without tokens, and its addresses without users, passwords and queries."""
    for secret in _known():
        text = text.replace(secret, HIDDEN)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _ADDRESS.sub(lambda address: address["scheme"] + address["rest"] + ("?…" if address["query"] else ""), text)
    return _TOKEN.sub("hf_" + HIDDEN, text)


def presentable(error: BaseException) -> BaseException | None:
    """Return the error, for `raise … from`, if its traceback holds no secret; else None, so that --debug shows none."""
    text = "".join(traceback.format_exception(error))
    return error if redacted(text) == text else None


def _known() -> list[str]:
    """Return the secrets of the environment, the longest first."""
    found = {os.environ.get(name, "").strip() for name in TOKEN_VARIABLES}
    for name in ADDRESS_VARIABLES:
        # Not by urlsplit: a password may hold what no address should, and the client then quotes a part of it.
        login, _, _ = os.environ.get(name, "").partition("://")[2].rpartition("@")
        user, colon, password = login.partition(":")
        secret = password if colon else user
        found |= {secret, unquote(secret), *re.split("[/?#@]", secret)}
    return sorted((secret for secret in found if len(secret) > 3), key=len, reverse=True)
