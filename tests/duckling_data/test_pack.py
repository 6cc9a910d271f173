"""Rows are the tokens of the stories, group by group, whatever the batches they come in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.corpus.demo import demo_stories
from duckling_data.rows.cut import RowPacker
from duckling_data.stages.packer import PackSettings
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_data.workspace.manifest import Manifest
from tests.support import reference_pipeline as reference
from tests.support.data import build, read_json, rows_of, write_jsonl

Stories = list[list[int]]
TEXTS = [
    *demo_stories(0, 50).to_pylist(),
    "",
    "a 🦆",
    f"one{GPT2.eos_text} two",
    *demo_stories(50, 53).to_pylist(),
    "",
    "",
]
SETTINGS: dict[str, Any] = {"sample": "all", "live": 400, "dead": 9}


def cut(stories: Stories, ctx: int, group: int | None) -> tuple[list[list[int]], int]:
    """Rows and dropped tokens, with plain lists."""
    rows, dropped = [], 0
    for start in range(0, len(stories), group or max(len(stories), 1)):
        stream = [token for story in stories[start : start + (group or len(stories))] for token in story]
        whole = len(stream) // ctx * ctx
        rows += [stream[at : at + ctx] for at in range(0, whole, ctx)]
        dropped += len(stream) - whole
    return rows, dropped


def pack(stories: Stories, ctx: int, group: int | None, borders: list[int]) -> tuple[list[list[int]], int]:
    """Rows and dropped tokens, by RowPacker, the stories handed over in batches that end at these borders."""
    packer = RowPacker(ctx, group)
    rows = []
    for start, stop in zip([0, *borders], [*borders, len(stories)], strict=True):
        batch = stories[start:stop]
        tokens = np.array([token for story in batch for token in story], np.uint16)
        made = packer.add(tokens, np.array([len(story) for story in batch], np.int64))
        assert made.dtype == np.uint16
        assert made.shape[1:] == (ctx,)
        rows += made.tolist()
    packer.finish()
    return rows, packer.dropped


tokens = st.integers(0, 65535)
stories_of_tokens = st.lists(st.lists(tokens, max_size=60), max_size=40)
groups = st.one_of(st.none(), st.sampled_from([1, 7]), st.integers(1, 50))


@settings(max_examples=300, deadline=None)
@given(stories=stories_of_tokens, ctx=st.integers(1, 50), group=groups, data=st.data())
def test_any_batching_gives_the_rows_of_plain_lists(
    stories: Stories, ctx: int, group: int | None, data: st.DataObject
) -> None:
    borders = sorted(data.draw(st.lists(st.integers(0, len(stories)), max_size=8)))  # equal ones: empty batches
    rows, dropped = pack(stories, ctx, group, borders)
    assert (rows, dropped) == cut(stories, ctx, group)
    assert sum(map(len, stories)) == len(rows) * ctx + dropped


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=40),
    ctx=st.integers(1, 50),
    group=st.integers(1, 12),
    batch=st.integers(1, 9),
)
def test_no_row_reaches_across_a_groups_border(lengths: list[int], ctx: int, group: int, batch: int) -> None:
    stories = [[index // group] * length for index, length in enumerate(lengths)]  # each token names its group
    rows, _ = pack(stories, ctx, group, list(range(batch, len(stories), batch)))
    assert all(len(set(row)) == 1 for row in rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "s.jsonl"
    write_jsonl(path, TEXTS)
    return path


@pytest.mark.parametrize("separator", ["none", "eos"])
@pytest.mark.parametrize("unk", ["most-frequent", "reserved", "decompose"])
def test_under_every_policy_rows_are_the_tokenizers_ids(tmp_path: Path, texts: Path, unk: str, separator: str) -> None:
    given_settings = SETTINGS | {"unk": unk, "eos": True, "separator": separator}
    build(tmp_path, texts, **given_settings, ctx=24, group=3)
    mapping = read_json(tmp_path / "token_mapping.json")
    tokenizer = DucklingTokenizer(mapping)
    behind = [mapping["gpt2_to_compact"][str(GPT2.eos_id)]] if separator == "eos" else []
    rows, dropped = cut([tokenizer.encode(text) + behind for text in TEXTS], ctx=24, group=3)
    assert rows_of(tmp_path).tolist() == rows
    figures = figures_of(tmp_path)
    assert (figures["rows"], figures["dropped_tail_tokens"]) == (len(rows), dropped)
    assert figures["tokens"] == len(rows) * 24 + dropped
    assert figures["stories"] == len(TEXTS)


def figures_of(workspace: Path, split: str = "train") -> dict[str, Any]:
    figures: dict[str, Any] = Manifest(workspace).stages["pack"].figures["splits"][split]
    return figures


@pytest.mark.parametrize("unk", ["most-frequent", "reserved", "decompose"])
def test_unknown_tokens_are_those_that_a_counter_finds(tmp_path: Path, gpt2: Any, texts: Path, unk: str) -> None:
    build(tmp_path, texts, **SETTINGS, unk=unk, ctx=1)
    mapping = read_json(tmp_path / "token_mapping.json")
    counter = Counter(token for ids in reference.encode(gpt2, TEXTS) for token in ids)
    unknown = sum(count for token, count in counter.items() if str(token) not in mapping["gpt2_to_compact"])
    figures = figures_of(tmp_path)
    split = unknown if unk == "decompose" else 0  # those are not lost
    assert figures.get("split_tokens", 0) == split
    assert figures["unknown_tokens"] == unknown - split
    assert figures["unknown_rate"] == round((unknown - split) / counter.total(), 9)
    assert unknown > 0
    assert ("split_tokens" in figures) == (unk == "decompose")
    if unk == "reserved":
        assert np.count_nonzero(rows_of(tmp_path) == mapping["unk_id"]) == unknown


def test_a_separator_stands_behind_every_story_the_empty_ones_too(tmp_path: Path, texts: Path) -> None:
    build(tmp_path, texts, **SETTINGS, eos=True, separator="eos", ctx=1, group="all")
    eos = read_json(tmp_path / "token_mapping.json")["gpt2_to_compact"][str(GPT2.eos_id)]
    ids = rows_of(tmp_path).ravel()
    assert np.count_nonzero(ids == eos) == len(TEXTS) + 1  # one story holds the text <|endoftext|>
    assert ids[-3:].tolist() == [eos] * 3  # the last two stories are empty


def test_stories_that_are_all_empty_are_packed_as_their_separators(tmp_path: Path, texts: Path) -> None:
    build(tmp_path / "first", texts, **SETTINGS, eos=True, ctx=8)
    mapping = tmp_path / "first" / "token_mapping.json"
    write_jsonl(tmp_path / "empty.jsonl", ["", "", ""])
    build(tmp_path / "w", tmp_path / "empty.jsonl", mapping=mapping, separator="eos", ctx=1)
    assert rows_of(tmp_path / "w").ravel().tolist() == [read_json(mapping)["gpt2_to_compact"][str(GPT2.eos_id)]] * 3


def test_a_separator_without_a_live_id_is_refused(tmp_path: Path, stories: Path) -> None:
    with pytest.raises(InputError, match=r"<\|endoftext\|> has no live id in this mapping"):
        build(tmp_path / "w", stories, **SETTINGS, separator="eos", ctx=8)


def test_the_validation_split_is_packed_with_the_train_mapping(tmp_path: Path, gpt2: Any) -> None:
    build(tmp_path, "demo:600", sample=200, live=900, ctx=16, group=4)
    mapping = read_json(tmp_path / "token_mapping.json")
    for split, name, count in (("train", "tokenized_dataset", 600), ("validation", "tokenized_validation", 10)):
        expected = reference.pack(gpt2, demo_stories(0, count, split=split).to_pylist(), mapping, ctx=16, group=4)
        assert rows_of(tmp_path, name).tolist() == expected
        assert figures_of(tmp_path, split)["rows"] == len(expected)


@pytest.mark.parametrize("bad", [{"ctx": 0}, {"ctx": (1 << 20) + 1}, {"group": 0}, {"separator": "tab"}])
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    [(name, value)] = bad.items()
    with pytest.raises(InputError, match=f"--{name} {value}: expected"):
        PackSettings(**bad)


def test_a_failed_pack_leaves_nothing_half_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"validation split .* fill no row"):  # ten stories of validation
        build(tmp_path, "demo:150", sample="all", live=300, ctx=4000)
    assert not list(tmp_path.glob("tokenized_*"))
