"""Stories that are fields of JSON objects, each parsed by itself: the lines of JSON Lines, the items of a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from duckling_data.base.errors import InputError
from duckling_data.base.records import short
from duckling_data.base.strict_json import refuse_duplicate_keys
from duckling_data.workspace.source_record import Findings

QUOTE, COLON, BLANK = b'": '
KEY_COLON = re.compile(rb':(?<=["\s]:)')
"""A colon that may follow a key; only a few in strings look like it."""


def parse_records(
    path: Path,
    kind: str,
    records: Sequence[tuple[int, bytes]],
    content: bytes,
    text_field: str,
    skipped: Findings | None = None,
) -> pa.Array:
    """Return the stories of numbered JSON objects, which are all that `content` holds: large_string, nulls kept.

    Raises InputError, `PATH: KIND NUMBER: ...`, for one that is broken, without the field, or with a duplicate key;
    where there is `skipped`, it is noted there and left out.
    """
    try:
        return _parse_quickly(records, content, text_field)
    except (ValueError, LookupError, TypeError):  # one at a time, to name it
        stories = []
        for number, record in records:
            try:
                stories.append(_story(record, text_field))
            except ValueError as error:
                if skipped is None:
                    raise InputError(f"{path}: {kind} {number:,}: {error}") from error
                skipped.skip(f"{kind} {number:,}: {error}")
        return pa.array(stories, pa.large_string())


def _parse_quickly(records: Sequence[tuple[int, bytes]], content: bytes, text_field: str) -> pa.Array:
    """Return the stories, or raise an error if a record may be at fault."""
    stories, keys = [], 0
    for _, record in records:
        value = orjson.loads(record)
        stories.append(value[text_field])
        keys += 1 if len(value) == 1 else _count_keys(value)
    data = np.frombuffer(content, np.uint8)
    before = data[np.flatnonzero(data == COLON) - 1]
    if np.count_nonzero((before == QUOTE) | (before <= BLANK)) != keys:  # as KEY_COLON counts
        raise ValueError("perhaps a duplicate key")
    return pa.array(stories, pa.large_string())


def _story(record: bytes, text_field: str) -> str | None:
    """Return an object's story. Raises ValueError for another object."""
    try:
        value = orjson.loads(record)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"broken JSON ({error.msg.split(': line ')[0]}).") from error
    if not isinstance(value, dict) or text_field not in value:
        raise ValueError(
            f"expected an object with {text_field!r}, found {short(value)}. "
            "Name the field that holds the stories with --text-field."
        )
    text = value[text_field]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{text_field!r} is {short(text)}, expected text.")
    # orjson keeps the last of equal keys. None was lost where there are no more colons than keys.
    keys = _count_keys(value)
    if len(KEY_COLON.findall(record)) != keys:
        try:
            refuse_duplicate_keys(record, keys)
        except ValueError as error:
            raise ValueError(f"{error}; expected each key once; remove one of the two.") from error
    return text


def _count_keys(record: dict[str, object]) -> int:
    """Return how many keys an object and the objects in it have together. For each record: so in plain loops."""
    keys = 0
    holders: list[Any] = [record]
    for holder in holders:  # it grows
        values = holder
        if type(holder) is dict:
            keys += len(holder)
            values = holder.values()
        for value in values:
            if type(value) is dict or type(value) is list:
                holders.append(value)
    return keys
