"""The mapping file, `token_mapping.json`: which GPT-2 tokens are live, and their compact ids.

Its keys, their order and its bytes are the seed's: `json.dumps(mapping, indent=2)`. The policy `decompose` adds one
key, `unk_policy`; another base tokenizer than GPT-2 the key `base`, and then `gpt2` in the names of the other keys
stands for that base. A mapping is checked completely whenever it is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import orjson

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes
from duckling_data.base.records import short
from duckling_data.base.strict_json import parse_json
from duckling_data.rows.layout import MAX_VOCAB
from duckling_data.tokens.base import BASE_FILE, BaseTokenizer
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.tokenizer_file import open_base

MAPPING_FILE = "token_mapping.json"
DECOMPOSE = "decompose"
REMEDY = "`duckling-data build-vocab` makes it again"
MAPPING_LIMIT = 12 << 20
"""The largest file that is read, in bytes; one with all of GPT-2's tokens live has 2.6 million, of Llama 3's 7."""
VALUES = 1 << 20
"""Values in it, at most: three for each live id."""


class TokenMapping(TypedDict):
    """The mapping as JSON holds it, with its keys in this order.

    >>> mapping = read_mapping("artifacts/token_mapping.json")
    >>> mapping["live_tokens"] + mapping["dead_tokens"] == mapping["total_vocab"]
    True
    """

    live_tokens: int
    """Compact ids 0 to live_tokens - 1 are live."""
    dead_tokens: int
    """The ids from live_tokens to total_vocab - 1 are dead: no token has them."""
    total_vocab: int
    """Their sum, the rows of the embedding."""
    unk_id: int
    """The compact id of a GPT-2 token that is not live; under `reserved` the last live id, which no token has."""
    gpt2_to_compact: dict[str, int]
    """GPT-2 id, as a decimal string, to compact id, in compact order."""
    compact_to_gpt2: dict[str, int]
    """Its inverse."""
    live_token_ids: list[int]
    """The live GPT-2 ids in compact order: most frequent first."""
    unk_policy: NotRequired[str]
    """`decompose`, or absent."""
    base: NotRequired[str]
    """The SHA-256 of the base tokenizer's file; absent for GPT-2."""


SIZES = ("live_tokens", "dead_tokens", "total_vocab", "unk_id")
KEYS = tuple(TokenMapping.__annotations__)
REQUIRED = KEYS[:7]


def mapping_bytes(mapping: Mapping[str, object]) -> bytes:
    """Return the mapping file's bytes: the seed's `json.dumps(..., indent=2)`, keys in the seed's order, no newline.

    Raises InputError for one that could not be read again.
    """
    content = orjson.dumps({key: mapping[key] for key in KEYS if key in mapping}, option=orjson.OPT_INDENT_2)
    if len(content) > MAPPING_LIMIT:
        raise InputError(f"the mapping takes {len(content):,} bytes, at most {MAPPING_LIMIT:,} are read; lower --live.")
    return content


def read_mapping(path: str | os.PathLike[str]) -> TokenMapping:
    """Return the checked mapping in the file `path`, as `open_mapping` does, without the base.

    >>> mapping = read_mapping("artifacts/token_mapping.json")
    >>> mapping["compact_to_gpt2"]["0"] == mapping["live_token_ids"][0]
    True
    """
    return open_mapping(path)[0]


def open_mapping(path: str | os.PathLike[str], base: BaseTokenizer | None = None) -> tuple[TokenMapping, BaseTokenizer]:
    """Return the checked mapping in the file `path`, and its base: `base`, or what its key `base` names.

    That is BASE_FILE beside it; without the key it is GPT-2. Raises InputError when a file cannot be read, is larger
    than MAPPING_LIMIT, is not JSON, fails `check_mapping`, or is not the base that the mapping names.
    """
    path = Path(path)
    try:
        mapping = parse_json(read_bytes(path, MAPPING_LIMIT), VALUES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); `duckling-data build-vocab` makes it") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {REMEDY}") from error
    named = mapping.get("base") if isinstance(mapping, dict) else None
    if base is None:
        base = open_base(path.with_name(BASE_FILE), named, path.name) if isinstance(named, str) else GPT2
    return check_mapping(mapping, str(path), base), base


def check_mapping(mapping: object, where: str, base: BaseTokenizer = GPT2) -> TokenMapping:
    """Return `mapping` itself if its sizes, ids and the three tables agree, and its tokens are those of `base`.

    Raises InputError, which names `where` (the file) and the first bad value, otherwise.
    """
    try:
        if not isinstance(mapping, dict):
            raise ValueError(f"holds {short(mapping)}; expected an object with the keys {', '.join(REQUIRED)}")
        for key in REQUIRED:
            if key not in mapping:
                raise ValueError(f"has no key {key!r}")
        for key in mapping:
            if key not in KEYS:
                raise ValueError(f"has an unknown key {short(key)}; expected {', '.join(KEYS)}")
        if mapping.get("unk_policy", DECOMPOSE) != DECOMPOSE:
            raise ValueError(f"unk_policy is {short(mapping['unk_policy'])}; expected {DECOMPOSE!r} or no such key")
        if mapping.get("base") != base.sha256:
            made, given = (short(sha)[:14] if sha else "GPT-2" for sha in (mapping.get("base"), base.sha256))
            raise ValueError(f"its base tokenizer is {made}, not {given}; give its own with --tokenizer")
        _check_sizes(mapping)
        _check_tables(mapping, base)
    except ValueError as error:
        raise InputError(f"{where}: {error}; {REMEDY}") from error
    return cast(TokenMapping, mapping)


def _check_sizes(mapping: dict[str, Any]) -> None:
    live, dead, total, unk = (mapping[name] for name in SIZES)
    _check_integer("live_tokens", live, 1, MAX_VOCAB)
    _check_integer("dead_tokens", dead, 0, MAX_VOCAB)
    _check_integer("total_vocab", total, 1, MAX_VOCAB)
    if live + dead != total:
        raise ValueError(f"total_vocab is {total}; expected live_tokens + dead_tokens = {live + dead}")
    _check_integer("unk_id", unk, 0, live - 1)


def _check_tables(mapping: dict[str, Any], base: BaseTokenizer) -> None:
    """Check the list of live tokens; then both tables are what follows from it."""
    live, ids = mapping["live_tokens"], mapping["live_token_ids"]
    reserved = mapping["unk_id"] == live - 1  # then the last live id need not have a token
    if not isinstance(ids, list) or not live - reserved <= len(ids) <= live:
        found = f"has {len(ids):,} entries" if isinstance(ids, list) else f"is {short(ids)}"
        raise ValueError(f"live_token_ids {found}; expected a list of {live:,} GPT-2 ids, one for each live id")
    first: dict[int, int] = {}
    for compact, gpt2 in enumerate(ids):
        _check_integer(f"live_token_ids[{compact}]", gpt2, 0, base.vocab_size - 1)
        if base is not GPT2 and gpt2 not in base.strings:
            raise ValueError(f"live_token_ids[{compact}] is {gpt2}, which is no token of its base tokenizer")
        if first.setdefault(gpt2, compact) != compact:
            raise ValueError(f"live_token_ids[{compact}] is {gpt2}, as live_token_ids[{first[gpt2]}]; expected once")
    _check_table("compact_to_gpt2", mapping, {str(compact): gpt2 for compact, gpt2 in enumerate(ids)})
    _check_table("gpt2_to_compact", mapping, {str(gpt2): compact for compact, gpt2 in enumerate(ids)})


def _check_table(name: str, mapping: dict[str, Any], expected: dict[str, int]) -> None:
    table = mapping[name]
    if not isinstance(table, dict):
        raise ValueError(f"{name} is {short(table)}; expected an object")
    for key, value in table.items():
        if key not in expected:
            raise ValueError(f"{name} has the key {short(key)}; expected the {len(expected):,} ids of live_token_ids")
        if type(value) is not int or value != expected[key]:
            raise ValueError(f"{name}[{key!r}] is {short(value)}; expected {expected[key]} by live_token_ids")
    for key in expected:
        if key not in table:
            raise ValueError(f"{name} has no key {key!r}; expected {expected[key]} there by live_token_ids")


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {short(value)}; expected an integer from {low} to {high}")
