from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError
from duckling_data.tokens.mapping import KEYS, MAPPING_FILE, check_mapping, mapping_bytes, parse_mapping, read_mapping

GOOD = {"0": 7, "1": 8, "2": 9, "3": 10}
BACK = {"7": 0, "8": 1, "9": 2, "10": 3}
MAPPING = {
    "live_tokens": 4,
    "dead_tokens": 2,
    "total_vocab": 6,
    "unk_id": 0,
    "gpt2_to_compact": BACK,
    "compact_to_gpt2": GOOD,
    "live_token_ids": [7, 8, 9, 10],
}
RESERVED = MAPPING | {"live_tokens": 5, "dead_tokens": 1, "unk_id": 4}
DECOMPOSE = MAPPING | {"unk_policy": "decompose"}


def changed(**changes: Any) -> dict[str, Any]:
    return MAPPING | changes


def tables(pairs: dict[str, Any], back: dict[str, Any] | None = None, ids: Any = None) -> dict[str, Any]:
    if back is None:
        back = {str(gpt2): int(compact) for compact, gpt2 in pairs.items()}
    ids = list(pairs.values()) if ids is None else ids
    return changed(compact_to_gpt2=pairs, gpt2_to_compact=back, live_token_ids=ids)


BAD = {
    "holds [1, 2], expected an object": [1, 2],
    "has no key 'live_tokens'": {},
    "has no key 'unk_id'": {key: value for key, value in changed().items() if key != "unk_id"},
    "unknown key 'colour'": changed(colour="red"),
    "unk_policy 'reserved'": changed(unk_policy="reserved"),
    "live_tokens = '4'": changed(live_tokens="4"),
    "live_tokens = True": changed(live_tokens=True),
    "live_tokens = 0": changed(live_tokens=0),
    "live_tokens = 4.0": changed(live_tokens=4.0),
    "dead_tokens = -1": changed(dead_tokens=-1),
    "total_vocab = 65537": changed(total_vocab=65537),
    "total_vocab 7, expected live_tokens + dead_tokens = 6": changed(total_vocab=7),
    "unk_id = 4": changed(unk_id=4),
    "unk_id = -1": changed(unk_id=-1),
    "compact_to_gpt2 = [7], expected an object": changed(compact_to_gpt2=[7]),
    "the key ' 1' in compact_to_gpt2": tables(GOOD | {" 1": 8}, BACK),
    "the key '01' in compact_to_gpt2": tables(GOOD | {"01": 8}, BACK),
    "the key of compact_to_gpt2 = 4": tables(GOOD | {"4": 11}, BACK),
    "compact_to_gpt2['3'] = 50257": tables(GOOD | {"3": 50257}, BACK),
    "compact_to_gpt2['3'] = None": tables(GOOD | {"3": None}, BACK),
    "the key of gpt2_to_compact = 50257": tables(GOOD, BACK | {"50257": 3}),
    "gpt2_to_compact['10'] = 4": tables(GOOD, BACK | {"10": 4}),
    "maps compact 3 to GPT-2 9, but GPT-2 9 to 2": tables(GOOD | {"3": 9}, BACK),
    "maps GPT-2 11 to compact 3, but compact 3 to 10": tables(GOOD, BACK | {"11": 3}),
    "maps compact 3 to GPT-2 10, but GPT-2 10 to None": tables(GOOD, {"7": 0, "8": 1, "9": 2}),
    "no entry for the live id 2": {**RESERVED, **tables({"0": 7, "1": 8, "3": 9}), "unk_id": 3},
    "no entry for the live id 3": tables({"0": 7, "1": 8, "2": 9}),
    "live_token_ids of 3, expected a list of 4": tables(GOOD, BACK, [7, 8, 9]),
    "live_token_ids of 'abc'": tables(GOOD, BACK, "abc"),
    "live_token_ids[2] = 10, but compact 2 is GPT-2 9": tables(GOOD, BACK, [7, 8, 10, 9]),
    "live_token_ids[0] = 7.0": tables(GOOD, BACK, [7.0, 8, 9, 10]),
}


@pytest.mark.parametrize("mapping", [MAPPING, RESERVED, DECOMPOSE, tables(GOOD)])
def test_a_good_mapping_is_returned_as_it_is(mapping: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / MAPPING_FILE
    path.write_bytes(mapping_bytes(mapping))
    assert check_mapping(mapping, "here") is mapping
    assert read_mapping(path) == parse_mapping(path.read_bytes(), "here") == mapping


@pytest.mark.parametrize("mapping", [MAPPING, RESERVED, DECOMPOSE])
def test_the_bytes_are_the_seeds_whatever_order_the_keys_come_in(mapping: dict[str, Any]) -> None:
    assert tuple(mapping) == KEYS[: len(mapping)]
    assert mapping_bytes(dict(reversed(mapping.items()))) == json.dumps(mapping, indent=2).encode()


@pytest.mark.parametrize(("fault", "bad"), BAD.items(), ids=BAD)
def test_a_bad_mapping_is_refused_with_its_value_named(fault: str, bad: Any, tmp_path: Path) -> None:
    path = tmp_path / MAPPING_FILE
    path.write_text(json.dumps(bad))
    with pytest.raises(InputError, match=re.escape(fault)) as info:
        read_mapping(path)
    message = str(info.value)
    assert message.startswith(str(path))
    assert message.endswith("; `duckling-data build-vocab` rebuilds it")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^some\.json is not JSON \(.*\); `duckling-data build-vocab` rebuilds it$"):
        parse_mapping(content, "some.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*: No such file or directory; `duckling-data build-vocab`"):
        read_mapping(tmp_path / MAPPING_FILE)
