"""Strict JSON: read with one meaning or refused, and written so that it can be read again.

What comes from outside is UTF-8, of bounded size, depth and numbers, with no key twice and no NaN; anything else is
refused, in bounded time and memory. `write_json` writes nothing that `read_json` would refuse.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes, write_bytes

JSON_LIMIT = 16 << 20
"""The largest JSON file that is read, in bytes: a manifest of 100,000 source files.

Parsed it takes up to 40 times that in memory, and some seconds."""

JSON_DEPTH = 32
"""Lists and objects inside each other, at most; Duckling's own files have 7."""

JSON_INTEGER = 1 << 63
"""Integers are below this, and not below its negative: what every library behind takes."""

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string; one that nothing ends goes to the end, so that no bytes are looked at twice."""

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that may be half a character. UTF-8 itself has none."""


def digest_json(value: object) -> str:
    """Return the SHA-256, in hex, of a value written as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON with a final line break, as `replacing` does.

    Raises InputError for a value that `read_json` would refuse, such as NaN or a name that is no text.
    """
    content = (json.dumps(value, indent=2) + "\n").encode()
    try:
        parse_json(content)
        if len(content) > JSON_LIMIT:
            raise ValueError(f"it takes {len(content):,} bytes, at most {JSON_LIMIT:,} are read")
    except ValueError as error:
        raise InputError(f"{path}: not written, for it could not be read again ({error}).") from error
    write_bytes(path, content)


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """Return a file's JSON, read strictly (`parse_json`).

    Raises InputError for a file that is missing, larger than `limit` bytes, no regular file, or not such JSON.
    """
    try:
        return parse_json(read_bytes(path, limit))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). Remove it and run the command again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def parse_json(content: bytes) -> Any:
    """Return the value of JSON in UTF-8, read strictly.

    Raises ValueError, in one line, for bytes that are not JSON, a key that stands twice in an object, NaN or Infinity,
    a number too large for a float or for 64 bits, more than JSON_DEPTH levels, a byte order mark, half a character.
    """
    try:
        text = content.decode("utf-8")
        if text.startswith("\ufeff"):
            raise ValueError("it starts with a byte order mark; save it as UTF-8 without one")
        _check_depth(content)
        value = _DECODER.decode(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half a character, a lone surrogate") from None
    return value


TOO_DEEP = f"more than {JSON_DEPTH} lists and objects inside each other"


def _check_depth(content: bytes) -> None:
    """Raise ValueError where JSON nests deeper than JSON_DEPTH: seen in its brackets, before anything is built."""
    import numpy as np

    outside = np.frombuffer(STRING.sub(b"", content), np.uint8)
    steps = np.zeros(len(outside), np.int8)
    steps[(outside == ord("[")) | (outside == ord("{"))] = 1
    steps[(outside == ord("]")) | (outside == ord("}"))] = -1
    if len(steps) and int(np.cumsum(steps, dtype=np.int32).max()) > JSON_DEPTH:
        raise ValueError(TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands twice in an object")
    return result


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else JSON_INTEGER
    if not -JSON_INTEGER <= value < JSON_INTEGER:
        raise ValueError(f"an integer of {len(digits):,} digits; 64 bits are the most")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:60]}, which no float holds")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
