"""Which tokens are live, and what becomes of the others."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.corpus.demo import demo_stories
from duckling_data.stages.counts import TokenCounts
from duckling_data.stages.vocab import VocabSettings, build_mapping
from duckling_data.tokens.compact import CompactTable
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import check_mapping
from duckling_data.tokens.tokenizer import DucklingTokenizer
from tests.support import reference_pipeline as reference
from tests.support.data import build, read_json, rows_of, write_jsonl

# GPT-2 ids:  "the" 1169, " the" 262, " cat" 3797, " sat" 3332, "." 13
TINY = ["the cat sat.", " the cat.", " the the."]
# Counts:     "." 3, " the" 3, " cat" 2, "the" 1, " sat" 1
TINY_MAPPING = b"""{
  "live_tokens": 4,
  "dead_tokens": 2,
  "total_vocab": 6,
  "unk_id": 0,
  "gpt2_to_compact": {
    "13": 0,
    "262": 1,
    "3797": 2,
    "1169": 3
  },
  "compact_to_gpt2": {
    "0": 13,
    "1": 262,
    "2": 3797,
    "3": 1169
  },
  "live_token_ids": [
    13,
    262,
    3797,
    1169
  ]
}"""
RARE = "\x07 Žluťoučký kůň 日本 🦆 ~zyx#"
"""Bytes and tokens that the demo's stories do not hold."""


def counts_of(ids: list[int]) -> TokenCounts:
    """The counts of these tokens, by collections.Counter."""
    counter = Counter(ids)
    first_seen = {token: rank for rank, token in enumerate(counter)}
    rows = [(token, count, first_seen[token]) for token, count in counter.most_common()]
    return TokenCounts(*np.array(rows, np.int64).reshape(-1, 3).T)


def build_tiny(folder: Path, **given: Any) -> bytes:
    write_jsonl(folder / "tiny.jsonl", TINY)
    build(folder / "w", folder / "tiny.jsonl", live=4, dead=2, ctx=1, **given)
    return (folder / "w" / "token_mapping.json").read_bytes()


# By hand


def test_the_mapping_of_a_tiny_corpus_is_the_one_counted_by_hand(tmp_path: Path) -> None:
    assert build_tiny(tmp_path, sample="all") == TINY_MAPPING
    # the cat sat. | the cat. | the the.   with " sat" unknown
    assert rows_of(tmp_path / "w").ravel().tolist() == [3, 2, 0, 0, 1, 2, 0, 1, 1, 0]


def test_ties_keep_the_order_of_first_appearance_in_the_shuffled_sample(tmp_path: Path) -> None:
    build_tiny(tmp_path, sample=3, seed=3)  # numpy's permutation of 3 with seed 3 is 2, 1, 0
    assert read_json(tmp_path / "w" / "token_mapping.json")["live_token_ids"] == [262, 13, 3797, 1169]


def test_reserved_keeps_the_last_live_id_for_unknown_tokens_alone(tmp_path: Path) -> None:
    build_tiny(tmp_path, sample="all", unk="reserved")
    mapping = read_json(tmp_path / "w" / "token_mapping.json")
    assert (mapping["live_tokens"], mapping["total_vocab"], mapping["unk_id"]) == (4, 6, 3)
    assert mapping["gpt2_to_compact"] == {"13": 0, "262": 1, "3797": 2}
    assert mapping["compact_to_gpt2"] == {"0": 13, "1": 262, "2": 3797}
    assert mapping["live_token_ids"] == [13, 262, 3797]
    assert rows_of(tmp_path / "w").ravel().tolist() == [3, 2, 3, 0, 1, 2, 0, 1, 1, 0]


# Decompose


@pytest.mark.parametrize(("sample", "live"), [(1, 100), (30, 500), (30, 700), ("all", 700)])
@pytest.mark.parametrize("eos", [False, True])
def test_decompose_loses_nothing_of_the_whole_corpus_and_uses_every_live_id(
    tmp_path: Path, gpt2: Any, sample: int | str, live: int, eos: bool
) -> None:
    texts = [*demo_stories(0, 60).to_pylist(), RARE, f"a literal {GPT2.eos_text}{GPT2.eos_text}", ""]
    write_jsonl(tmp_path / "s.jsonl", texts)
    workspace = tmp_path / "w"
    build(
        workspace, tmp_path / "s.jsonl", sample=sample, live=live, unk="decompose", eos=eos, ctx=1, group="all", dead=7
    )
    mapping = read_json(workspace / "token_mapping.json")
    ids = rows_of(workspace).ravel().tolist()
    assert gpt2.decode([mapping["compact_to_gpt2"][str(i)] for i in ids]) == "".join(texts)
    assert set(ids) == set(range(live))  # so no byte piece is there in vain
    assert mapping["live_token_ids"].count(GPT2.eos_id) == 1


pieces = st.sampled_from(
    [" the", "the", " cat", "cats", "s", "aaa", " ", "\n\n", "é", "🦆", GPT2.eos_text, ".", "\x00"]
)
corpora = st.lists(st.one_of(st.lists(pieces, max_size=12).map("".join), st.text(max_size=8)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(texts=corpora, data=st.data())
def test_decompose_is_lossless_and_minimal_for_any_corpus_and_sample(
    gpt2: Any, texts: list[str], data: st.DataObject
) -> None:
    encoded = reference.encode(gpt2, texts)
    sample = [token for ids in encoded[: data.draw(st.integers(1, len(texts)))] for token in ids]
    corpus = [token for ids in encoded for token in ids]
    if not sample:
        return
    live = data.draw(st.integers(1, len(set(sample)) + 8))
    try:
        mapping = build_mapping(
            counts_of(sample), VocabSettings(live, 3, "decompose"), np.array(sorted(set(corpus)), np.int64)
        )
    except InputError as error:
        assert "single bytes alone" in str(error) or "distinct tokens" in str(error)  # noqa: PT017
        return
    check_mapping(mapping, "here")
    table = CompactTable.from_mapping(mapping)
    tokens = table.compact(np.array(corpus, np.uint16), np.array([len(corpus)])).tokens.tolist()
    assert gpt2.decode([mapping["live_token_ids"][i] for i in tokens]) == "".join(texts)
    assert set(tokens) == set(range(live))
    whole = [token for token in mapping["live_token_ids"] if token in GPT2.parts]
    frequent = [token for token in counts_of(sample).gpt2_id.tolist() if token in GPT2.parts]
    assert whole == frequent[: len(whole)]  # the most frequent ones, in their order


def test_under_decompose_a_byte_without_a_live_token_becomes_unk_id(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "s.jsonl", ["a b a b ab ba", "ab"])
    build(tmp_path / "w", tmp_path / "s.jsonl", sample="all", live=5, unk="decompose", ctx=1, dead=1)
    mapping = read_json(tmp_path / "w" / "token_mapping.json")
    tokenizer = DucklingTokenizer(mapping)
    assert mapping["unk_id"] == 0
    assert tokenizer.decode(tokenizer.encode("abba")) == "abba"
    assert tokenizer.encode("\x07") == tokenizer.encode(GPT2.eos_text) == [0]
    assert tokenizer.encode("é") == [0, 0]


def test_too_few_ids_for_the_bytes_are_refused() -> None:
    ids = [64, 64, 65, 66, 67]  # a a b c d: bytes all
    with pytest.raises(InputError, match=r"decompose needs \d ids for single bytes alone, --live 2 has too few"):
        build_mapping(counts_of(ids), VocabSettings(2, 1, "decompose"), np.unique(ids))


# --eos


@pytest.mark.parametrize("unk", ["most-frequent", "reserved", "decompose"])
def test_eos_gives_endoftext_one_live_id_where_it_never_occurs(unk: str) -> None:
    ids = [5, 5, 5, 6, 6, 7, 8]
    mapping = build_mapping(counts_of(ids), VocabSettings(4, 1, unk, eos=True), np.unique([5, 6]))
    check_mapping(mapping, "here")
    expected = [5, 6, GPT2.eos_id] if unk == "reserved" else [5, 6, 7, GPT2.eos_id]
    assert mapping["live_token_ids"] == expected
    assert mapping["gpt2_to_compact"][str(GPT2.eos_id)] == len(expected) - 1


@pytest.mark.parametrize("unk", ["most-frequent", "reserved"])
@pytest.mark.parametrize("rank", range(5))
def test_eos_changes_nothing_where_endoftext_is_live_already(unk: str, rank: int) -> None:
    order = [5, 6, 7, 8]
    order.insert(rank, GPT2.eos_id)
    counts = counts_of([token for place, token in enumerate(order) for _ in range(9 - place)])
    plain, with_eos = (build_mapping(counts, VocabSettings(4, 1, unk, eos=eos)) for eos in (False, True))
    room = 3 if unk == "reserved" else 4
    assert (with_eos == plain) == (rank < room)
    assert with_eos["live_token_ids"].count(GPT2.eos_id) == 1
    assert plain["live_token_ids"] == order[:room]


# Settings out of range


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"live": 0}, "--live 0: expected at least 1"),
        ({"live": 1, "unk": "reserved"}, "--live 1: expected at least 2"),
        ({"live": 2, "unk": "reserved", "eos": True}, "--live 2: expected at least 3"),
        ({"dead": -1}, "--dead -1: expected 0 or more"),
        ({"live": 1 << 20, "dead": 1}, "make 1,048,577 ids; expected at most 1,048,576"),
        ({"unk": "drop"}, "--unk drop: expected one of most-frequent, reserved, decompose"),
    ],
)
def test_settings_out_of_range_are_refused(given_settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        VocabSettings(**given_settings)


@pytest.mark.parametrize("edge", [{"live": 1}, {"live": 2, "unk": "reserved"}, {"live": 65536, "dead": 0}])
def test_settings_at_the_edge_are_taken(edge: dict[str, Any]) -> None:
    VocabSettings(**edge)


@pytest.mark.parametrize(("unk", "live"), [("most-frequent", 4), ("reserved", 5), ("decompose", 4)])
def test_too_few_distinct_tokens_are_refused_with_their_number(unk: str, live: int) -> None:
    ids = [5, 5, 6, 7]
    says = f"hold 3 distinct tokens, too few for --live {live}. Lower --live"
    with pytest.raises(InputError, match=re.escape(says)):
        build_mapping(counts_of(ids), VocabSettings(live, 1, unk), np.unique(ids))
    build_mapping(counts_of(ids), VocabSettings(live - 1, 1, unk), np.unique(ids))


def test_decompose_says_so_where_bytes_and_eos_leave_no_room(tmp_path: Path) -> None:
    source = tmp_path / "letters.jsonl"
    write_jsonl(source, ["c", "d"])
    with pytest.raises(InputError, match=r"needs 3 ids .* --live 2 has too few"):
        build(tmp_path / "w", source, sample="all", live=2, dead=1, unk="decompose", eos=True, ctx=1)
