from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError
from duckling_data.tokens.mapping import KEYS, MAPPING_FILE, check_mapping, mapping_bytes, read_mapping

LIVE = [7, 8, 9, 10]
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
    "holds [1, 2]; expected an object": [1, 2],
    "has no key 'live_tokens'": {},
    "has no key 'unk_id'": {key: value for key, value in changed().items() if key != "unk_id"},
    "unknown key 'colour'": changed(colour="red"),
    "unk_policy is 'reserved'": changed(unk_policy="reserved"),
    "live_tokens is '4'": changed(live_tokens="4"),
    "live_tokens is True": changed(live_tokens=True),
    "live_tokens is 0": changed(live_tokens=0),
    "live_tokens is 4.0": changed(live_tokens=4.0),
    "dead_tokens is -1": changed(dead_tokens=-1),
    "total_vocab is 65537": changed(total_vocab=65537),
    "total_vocab is 7; expected live_tokens + dead_tokens = 6": changed(total_vocab=7),
    "unk_id is 4": changed(unk_id=4),
    "unk_id is -1": changed(unk_id=-1),
    "compact_to_gpt2 is [7]; expected an object": changed(compact_to_gpt2=[7]),
    "compact_to_gpt2 has the key ' 1'": tables(GOOD | {" 1": 8}, BACK, LIVE),
    "compact_to_gpt2 has the key '01'": tables(GOOD | {"01": 8}, BACK, LIVE),
    "compact_to_gpt2 has the key '4'": tables(GOOD | {"4": 11}, BACK, LIVE),
    "compact_to_gpt2['3'] is 50257; expected 10": tables(GOOD | {"3": 50257}, BACK, LIVE),
    "compact_to_gpt2['3'] is None; expected 10": tables(GOOD | {"3": None}, BACK, LIVE),
    "compact_to_gpt2['3'] is 9; expected 10": tables(GOOD | {"3": 9}, BACK, LIVE),
    "compact_to_gpt2 has no key '3'; expected 10": tables({"0": 7, "1": 8, "2": 9}, BACK, LIVE),
    "gpt2_to_compact is None; expected an object": changed(gpt2_to_compact=None),
    "gpt2_to_compact has the key '50257'": tables(GOOD, BACK | {"50257": 3}),
    "gpt2_to_compact has the key '11'": tables(GOOD, BACK | {"11": 3}),
    "gpt2_to_compact['10'] is 4; expected 3": tables(GOOD, BACK | {"10": 4}),
    "gpt2_to_compact['7'] is False; expected 0": tables(GOOD, BACK | {"7": False}),
    "gpt2_to_compact['8'] is 1.0; expected 1": tables(GOOD, BACK | {"8": 1.0}),
    "gpt2_to_compact has no key '10'; expected 3": tables(GOOD, {"7": 0, "8": 1, "9": 2}),
    "compact_to_gpt2 has the key '3'; expected the 3 ids of live_token_ids": {
        **RESERVED, **tables({"0": 7, "1": 8, "3": 9}), "unk_id": 3,
    },
    "live_token_ids has 3 entries; expected a list of 4": tables(GOOD, BACK, [7, 8, 9]),
    "live_token_ids has 5 entries; expected a list of 4": tables(GOOD, BACK, [7, 8, 9, 10, 11]),
    "live_token_ids is 'abc'": tables(GOOD, BACK, "abc"),
    "live_token_ids[3] is 50257; expected an integer from 0 to 50256": tables(GOOD, BACK, [7, 8, 9, 50257]),
    "live_token_ids[2] is 7, as live_token_ids[0]; expected once": tables(GOOD, BACK, [7, 8, 7, 10]),
    "compact_to_gpt2['2'] is 9; expected 10 by live_token_ids": tables(GOOD, BACK, [7, 8, 10, 9]),
    "live_token_ids[0] is 7.0": tables(GOOD, BACK, [7.0, 8, 9, 10]),
}  # fmt: skip


@pytest.mark.parametrize("mapping", [MAPPING, RESERVED, DECOMPOSE, tables(GOOD)])
def test_a_good_mapping_is_returned_as_it_is(mapping: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / MAPPING_FILE
    path.write_bytes(mapping_bytes(mapping))
    assert check_mapping(mapping, "here") is mapping
    assert read_mapping(path) == mapping


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
    assert message.startswith(f"{path}: ")
    assert message.endswith("; `duckling-data build-vocab` makes it again")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "some.json").write_bytes(content)
    with pytest.raises(InputError, match=r"some\.json: not JSON \(.*\); `duckling-data build-vocab` makes it again$"):
        read_mapping(tmp_path / "some.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r": cannot be read \(No such file .*\); `duckling-data build-vocab` makes it$"
    ):
        read_mapping(tmp_path / MAPPING_FILE)
