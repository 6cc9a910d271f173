"""The mapping file, `token_mapping.json`: which GPT-2 tokens are live, and under which compact ids.

Its keys, their order and its bytes are the seed's: `json.dumps(mapping, indent=2)`. The policy `decompose` adds one
last key, `unk_policy`. A mapping is checked whole whenever it is read, so that nothing after has to doubt it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes
from duckling_data.base.strict_json import parse_json
from duckling_data.rows.layout import MAX_VOCAB
from duckling_data.tokens.gpt2 import GPT2

MAPPING_FILE = "token_mapping.json"
DECOMPOSE = "decompose"
MAPPING_LIMIT = 8 << 20
"""The largest file that is read, in bytes; all of GPT-2's tokens live make 2.6 million."""
MAX_DIGITS = 5
"""Digits of the largest id."""


TokenMapping = dict[str, Any]
"""The mapping as JSON holds it, with these keys in this order:

live_tokens      compact ids 0 to live_tokens - 1 are live
dead_tokens      the ids from live_tokens to total_vocab - 1: no token has them
total_vocab      their sum, the rows of the embedding
unk_id           the compact id of a GPT-2 token that is not live; under `reserved` the last live id, which no token has
gpt2_to_compact  GPT-2 id, as a decimal string, -> compact id, in compact order
compact_to_gpt2  its inverse
live_token_ids   the live GPT-2 ids in compact order: most frequent first
unk_policy       "decompose", or absent
"""
SIZES = ("live_tokens", "dead_tokens", "total_vocab", "unk_id")
REQUIRED_KEYS = (*SIZES, "gpt2_to_compact", "compact_to_gpt2", "live_token_ids")
KEYS = (*REQUIRED_KEYS, "unk_policy")


def mapping_bytes(mapping: Mapping[str, object]) -> bytes:
    """Return the mapping file's bytes: the seed's `json.dumps(..., indent=2)`, keys in the seed's order, no newline."""
    return json.dumps({key: mapping[key] for key in KEYS if key in mapping}, indent=2).encode()


def read_mapping(path: str | os.PathLike[str]) -> TokenMapping:
    """Return the checked mapping in the file `path`.

    Raises InputError when the file cannot be read, is larger than MAPPING_LIMIT, is not JSON, or fails `check_mapping`.
    """
    try:
        content = read_bytes(Path(path), MAPPING_LIMIT)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; `duckling-data build-vocab` makes it") from error
    return parse_mapping(content, str(path))


def parse_mapping(content: bytes, where: str) -> TokenMapping:
    """Return the checked mapping in a file's bytes; `where` names the file in the InputError of one that is bad."""
    try:
        mapping = parse_json(content)
    except ValueError as error:
        _refuse(where, f"is not JSON ({error})")
    return check_mapping(mapping, where)


def check_mapping(mapping: object, where: str) -> TokenMapping:
    """Return `mapping` as it is, having found it whole: its sizes, ids and the three tables agree.

    Raises InputError, which names `where` (the file) and the first bad value, otherwise.
    """
    if not isinstance(mapping, dict):
        _refuse(where, f"holds {_short(mapping)}, expected an object with the keys {', '.join(REQUIRED_KEYS)}")
    for key in REQUIRED_KEYS:
        if key not in mapping:
            _refuse(where, f"has no key {key!r}")
    for key in mapping:
        if key not in KEYS:
            _refuse(where, f"has an unknown key {_short(key)}")
    if mapping.get("unk_policy", DECOMPOSE) != DECOMPOSE:
        _refuse(where, f"has unk_policy {_short(mapping['unk_policy'])}, expected {DECOMPOSE!r} or no such key")
    _check_sizes(mapping, where)
    _check_tables(mapping, where)
    return mapping


def _check_sizes(mapping: TokenMapping, where: str) -> None:
    live, dead, total = mapping["live_tokens"], mapping["dead_tokens"], mapping["total_vocab"]
    _check_integer(live, 1, MAX_VOCAB, "live_tokens", where)
    _check_integer(dead, 0, MAX_VOCAB, "dead_tokens", where)
    _check_integer(total, 1, MAX_VOCAB, "total_vocab", where)
    if live + dead != total:
        _refuse(where, f"has total_vocab {total}, expected live_tokens + dead_tokens = {live + dead}")
    _check_integer(mapping["unk_id"], 0, live - 1, "unk_id", where)


def _check_tables(mapping: TokenMapping, where: str) -> None:
    live = mapping["live_tokens"]
    to_gpt2 = _read_table(mapping, "compact_to_gpt2", live, GPT2.vocab_size, where)
    to_compact = _read_table(mapping, "gpt2_to_compact", GPT2.vocab_size, live, where)
    for compact, gpt2 in to_gpt2.items():
        if to_compact.get(gpt2) != compact:
            _refuse(where, f"maps compact {compact} to GPT-2 {gpt2}, but GPT-2 {gpt2} to {to_compact.get(gpt2)}")
    for gpt2, compact in to_compact.items():
        if to_gpt2.get(compact) != gpt2:
            _refuse(where, f"maps GPT-2 {gpt2} to compact {compact}, but compact {compact} to {to_gpt2.get(compact)}")
    reserved = live - 1 if mapping["unk_id"] == live - 1 else None
    for compact in range(live):
        if compact not in to_gpt2 and compact != reserved:
            _refuse(where, f"has no entry for the live id {compact} in compact_to_gpt2")
    ids = mapping["live_token_ids"]
    expected = [to_gpt2[compact] for compact in sorted(to_gpt2)]
    if not isinstance(ids, list) or len(ids) != len(expected):
        size = len(ids) if isinstance(ids, list) else _short(ids)
        _refuse(where, f"has live_token_ids of {size}, expected a list of {len(expected)} GPT-2 ids")
    for compact, (found, gpt2) in enumerate(zip(ids, expected, strict=True)):
        if type(found) is not int or found != gpt2:
            _refuse(where, f"has live_token_ids[{compact}] = {_short(found)}, but compact {compact} is GPT-2 {gpt2}")


def _read_table(mapping: TokenMapping, name: str, keys: int, values: int, where: str) -> dict[int, int]:
    """Return one of the two tables with integer keys, all below `keys`, and values, all below `values`."""
    table = mapping[name]
    if not isinstance(table, dict):
        _refuse(where, f"has {name} = {_short(table)}, expected an object")
    result = {}
    for key, value in table.items():
        if not (isinstance(key, str) and key.isascii() and key.isdecimal() and _is_id(key)):
            _refuse(where, f"has the key {_short(key)} in {name}, expected a decimal string")
        _check_integer(int(key), 0, keys - 1, f"the key of {name}", where)
        _check_integer(value, 0, values - 1, f"{name}[{key!r}]", where)
        result[int(key)] = value
    return result


def _is_id(digits: str) -> bool:
    return len(digits) <= MAX_DIGITS and str(int(digits)) == digits


def _check_integer(value: object, low: int, high: int, name: str, where: str) -> None:
    if type(value) is not int or not low <= value <= high:
        _refuse(where, f"has {name} = {_short(value)}, expected an integer from {low} to {high}")


def _short(value: object) -> str:
    """Return a value as one short line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(where: str, fault: str) -> NoReturn:
    raise InputError(f"{where} {fault}; `duckling-data build-vocab` rebuilds it")
