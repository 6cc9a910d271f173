"""Strict JSON: read with one meaning or refused, and written so that it can be read again.

It is UTF-8, of bounded size, depth and numbers, without duplicate keys and NaN; all else is refused, in bounded time
and memory. `write_json` writes nothing that `read_json` would refuse.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import orjson

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes, write_bytes

JSON_LIMIT = 16 << 20
"""Bytes of a JSON file, at most: a manifest of 100,000 source files. Parsed it takes up to 60 times that in memory."""
JSON_DEPTH = 32
"""Lists and objects inside each other, at most; Duckling's own files have 7."""

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string; one without an end is all that follows, so that no bytes are looked at twice."""
LONG_INTEGER = re.compile(rb"(?<![\d.eE+-])-?\d{19,}+(?![.eE])")
"""An integer that may not fit in 64 bits; orjson would read a float."""
SURROGATE = re.compile("(no|invalid) (low|high) surrogate")
"""How orjson names a lone surrogate."""


def digest_json(value: object) -> str:
    """Return the SHA-256, in hex, of a value written as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, as `replacing` does. Raises InputError for one that `read_json` would refuse."""
    content = (json.dumps(value, indent=2) + "\n").encode()
    try:
        parse_json(content)
        if len(content) > JSON_LIMIT:
            raise ValueError(f"it takes {len(content):,} bytes, at most {JSON_LIMIT:,} are read")
    except ValueError as error:
        raise InputError(f"{path}: not written, for it could not be read again ({error}).") from error
    write_bytes(path, content)


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """Return a file's JSON. Raises InputError for what `parse_json` and, beyond `limit` bytes, `read_bytes` refuse."""
    try:
        return parse_json(read_bytes(path, limit))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). Remove it and run the command again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def parse_json(content: bytes, most: int | None = None) -> Any:
    """Return the value of JSON in UTF-8, read strictly; with `most` values at most, about: each takes memory.

    Raises ValueError, in one line, for bytes that are not JSON, a duplicate key in an object, NaN or Infinity, a number
    too large for a float or for 64 bits, more than JSON_DEPTH levels, a byte order mark, a lone surrogate.
    """
    if most is not None and sum(map(content.count, (b"[", b"{", b","))) > most:
        raise ValueError(f"more than {most:,} values")
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ValueError(SURROGATE.sub("lone surrogate", str(error))) from error
    pairs = _count_pairs(value)
    outside = STRING.sub(b"", content)
    for number in LONG_INTEGER.findall(outside):
        if not -(1 << 63) <= int(number) < 1 << 63:
            raise ValueError(f"an integer of {len(number):,} characters; at most 64 bits are read")
    if outside.count(b":") != pairs:
        _name_duplicate(content)
    return value


def refuse_duplicate_keys(content: bytes, pairs: int) -> None:
    """Raise ValueError, which names the key, where an object of valid JSON repeats one: it was read as `pairs`."""
    if STRING.sub(b"", content).count(b":") != pairs:
        _name_duplicate(content)


def _count_pairs(value: object) -> int:
    """Return how many keys all objects hold together. Raises ValueError for more than JSON_DEPTH levels."""
    pairs = 0
    level: Iterable[object] = [value]
    for _ in range(JSON_DEPTH + 1):
        holders = [item for item in level if isinstance(item, (dict, list))]
        if not holders:
            return pairs
        pairs += sum(len(item) for item in holders if isinstance(item, dict))
        level = itertools.chain.from_iterable(item.values() if isinstance(item, dict) else item for item in holders)
    raise ValueError(f"more than {JSON_DEPTH} lists and objects inside each other")


def _name_duplicate(content: bytes) -> NoReturn:
    """Raise ValueError for the duplicate key that is in the JSON, found with the standard library's parser."""
    with contextlib.suppress(RecursionError):  # in deep JSON the key is not named
        json.loads(content, object_pairs_hook=_refuse_duplicate, parse_int=str)
    raise ValueError("a duplicate key in an object")


def _refuse_duplicate(pairs: list[tuple[str, Any]]) -> None:
    for key, times in Counter(key for key, _ in pairs).items():
        if times > 1:
            raise ValueError(f"the duplicate key {key[:60]!r} in an object")
