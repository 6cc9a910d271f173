from __future__ import annotations

import ast
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2TokenizerFast

from duckling_data.base.errors import InputError
from duckling_data.base.gpt2_files import gpt2_merges, gpt2_vocabulary
from duckling_data.tokens.encoders import load_encoder
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import MAPPING_FILE, mapping_bytes
from duckling_data.tokens.tokenizer import DucklingTokenizer
from tests.support.mappings import STORIES, make_mapping
from tests.support.seed_cells import TEMPLATE, code_cells, put_gpt2_files

REAL_STORIES = Path(__file__).parents[3] / "shared" / "data" / "tinystories" / "train-head-v1.jsonl"
TEXTS = [
    *STORIES,
    "",
    " ",
    ".",
    "...",
    "The zebra jumped.\r\n",
    f"end.{GPT2.eos_text}Once",
    "\U0001f680 Ünknown",
    "Ġthe",
    "<|",
]
POLICIES = ["most-frequent", "reserved", "decompose"]
any_text = st.one_of(st.text(), st.lists(st.sampled_from([*TEXTS, " the", "'s", GPT2.eos_text])).map("".join))


@pytest.fixture(scope="module", params=POLICIES)
def mapping(request: pytest.FixtureRequest) -> dict[str, Any]:
    return make_mapping(request.param)


@pytest.fixture(scope="module")
def tokenizer(mapping: dict[str, Any]) -> DucklingTokenizer:
    return DucklingTokenizer(mapping)


@pytest.fixture(scope="module")
def seed_class(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The seed's own DucklingTokenizer, cut out of its text; its `from_pretrained("gpt2")` finds GPT-2's files."""
    folder = tmp_path_factory.mktemp("seed")
    put_gpt2_files(folder)
    [node] = [
        node
        for cell in code_cells()
        for node in ast.parse(cell).body
        if isinstance(node, ast.ClassDef) and node.name == "DucklingTokenizer"
    ]
    namespace: dict[str, Any] = {"GPT2TokenizerFast": GPT2TokenizerFast}
    exec(compile(ast.Module([node], []), TEMPLATE.name, "exec"), namespace)

    def build(mapping: dict[str, Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return namespace["DucklingTokenizer"](mapping)

    return build


# Equal to the seed's class


@pytest.fixture(scope="module", params=["most-frequent", "reserved", "most-frequent with eos"])
def pair(request: pytest.FixtureRequest, seed_class: Any) -> tuple[DucklingTokenizer, Any]:
    policy, _, eos = request.param.partition(" with ")
    mapping = make_mapping(policy, extra=(GPT2.eos_id,) if eos else ())
    return DucklingTokenizer(mapping), seed_class(json.loads(mapping_bytes(mapping)))


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_encode_is_the_seeds(pair: tuple[DucklingTokenizer, Any], text: str) -> None:
    ours, seeds = pair
    assert ours.encode(text) == ours(text)["input_ids"] == seeds.encode(text)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(-1, 100)))
def test_decode_is_the_seeds(pair: tuple[DucklingTokenizer, Any], ids: list[int]) -> None:
    ours, seeds = pair
    assert ours.decode(ids) == seeds.decode(ids)


def test_the_seeds_class_reads_our_decompose_file_as_most_frequent(seed_class: Any) -> None:
    mapping = make_mapping("decompose")
    seeds = seed_class(mapping)
    plain = DucklingTokenizer({key: value for key, value in mapping.items() if key != "unk_policy"})
    assert [seeds.encode(text) for text in TEXTS] == [plain.encode(text) for text in TEXTS]


@pytest.mark.skipif(not REAL_STORIES.exists(), reason="no TinyStories beside this checkout")
@pytest.mark.parametrize("policy", ["most-frequent", "reserved"])
def test_real_stories_are_encoded_and_decoded_as_the_seed_does(seed_class: Any, policy: str) -> None:
    mapping = make_mapping(policy)
    ours, seeds = DucklingTokenizer(mapping), seed_class(mapping)
    with REAL_STORIES.open(encoding="utf-8") as lines:
        for line, _ in zip(lines, range(200), strict=False):
            text = json.loads(line)["text"]
            ids = ours.encode(text)
            assert ids == seeds.encode(text)
            assert ours.decode(ids) == seeds.decode(ids)


# The policies


def test_unknown_tokens_become_the_policys_id() -> None:
    unknown = " zebra"
    gpt2_ids = load_encoder().encode(unknown)
    assert DucklingTokenizer(make_mapping("most-frequent")).encode(unknown) == [0] * len(gpt2_ids)
    reserved = DucklingTokenizer(make_mapping("reserved"))
    assert reserved.encode(unknown) == [59] * len(gpt2_ids)
    assert reserved.decode([59]) == ""
    assert reserved.decode([59, 3, 59], show_unknown=True) == f"⟨unk⟩{reserved.decode([3])}⟨unk⟩"
    assert reserved.batch_decode([[59], []], show_unknown=True) == ["⟨unk⟩", ""]
    assert reserved.decode(59, show_unknown=True) == "⟨unk⟩"
    assert DucklingTokenizer(make_mapping("most-frequent")).decode([0], show_unknown=True) != "⟨unk⟩"


def test_decompose_falls_back_on_bytes_by_hand() -> None:
    names = gpt2_vocabulary()
    ids = [names[token] for token in ("a", "b", "Ġ", "ab")]
    live = {"live_tokens": 4, "dead_tokens": 1, "total_vocab": 5, "unk_id": 2}
    tables = {
        "gpt2_to_compact": {str(gpt2): compact for compact, gpt2 in enumerate(ids)},
        "compact_to_gpt2": {str(compact): gpt2 for compact, gpt2 in enumerate(ids)},
        "live_token_ids": ids,
    }
    tokenizer = DucklingTokenizer({**live, **tables, "unk_policy": "decompose"})
    assert tokenizer.tokenize("abba abc") == ["ab", "b", "a", "Ġ", "a", "b", "c"]
    assert tokenizer.encode("abba abc") == [3, 1, 0, 2, 0, 1, 2]  # "c" has no live id: unk_id
    assert tokenizer.encode(GPT2.eos_text) == [2]


@pytest.fixture(scope="module")
def lossless() -> DucklingTokenizer:
    return DucklingTokenizer(make_mapping("decompose", extra=(GPT2.eos_id,)))


def test_offsets_are_refused_and_not_left_out() -> None:
    tokenizer = DucklingTokenizer(make_mapping("most-frequent"))
    for text in ("One day", ["One day", "She"]):
        with pytest.raises(InputError, match="return_offsets_mapping"):
            tokenizer(text, return_offsets_mapping=True)


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_decompose_loses_nothing(lossless: DucklingTokenizer, text: str) -> None:
    ids = lossless.encode(text)
    assert lossless.decode(ids) == text
    assert set(ids) <= set(lossless.live_token_ids)


# At home in transformers


def test_the_sizes_are_the_models(tokenizer: DucklingTokenizer, mapping: dict[str, Any]) -> None:
    live, total = mapping["live_tokens"], mapping["total_vocab"]
    assert len(tokenizer) == tokenizer.vocab_size == total
    assert sorted(tokenizer.get_vocab().values()) == list(range(total))
    assert tokenizer.live_token_ids == range(live)
    assert tokenizer.dead_token_ids == set(range(live, total))
    assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(list(range(total)))) == list(range(total))


@settings(max_examples=100, deadline=None)
@given(text=any_text)
def test_no_text_encodes_to_a_dead_id(tokenizer: DucklingTokenizer, text: str) -> None:
    dead_name = tokenizer.convert_ids_to_tokens(min(tokenizer.dead_token_ids))
    assert not tokenizer.dead_token_ids & set(tokenizer.encode(text + dead_name))


def test_nothing_is_added_and_a_batch_is_its_texts(tokenizer: DucklingTokenizer) -> None:
    batch = tokenizer(TEXTS)
    assert batch["input_ids"] == [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    assert sorted(batch) == ["attention_mask", "input_ids"]
    assert tokenizer.batch_decode(batch["input_ids"]) == [tokenizer.decode(ids) for ids in batch["input_ids"]]


def test_padding_needs_a_token_and_then_pads(tokenizer: DucklingTokenizer) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    with pytest.raises(ValueError, match="does not have a padding token"):
        tokenizer(["a", "a b"], padding=True)
    plain = tokenizer.encode("One day... she."), tokenizer.encode(" a")
    tokenizer.pad_token_id = 1
    batch = tokenizer(["One day... she.", " a"], padding=True, return_tensors="np")
    width = len(plain[0])
    assert np.array_equal(batch["input_ids"], [plain[0], plain[1] + [1] * (width - len(plain[1]))])
    assert batch["attention_mask"].sum(axis=1).tolist() == [width, len(plain[1])]


def test_eos_is_named_where_it_is_live() -> None:
    tokenizer = DucklingTokenizer(make_mapping("most-frequent", extra=(GPT2.eos_id,)))
    assert (tokenizer.eos_token, tokenizer.eos_token_id, len(tokenizer)) == (GPT2.eos_text, 59, 80)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer([".", "..."], padding="max_length", max_length=3)["input_ids"][0][1:] == [59, 59]
    assert tokenizer.decode([0, 59], skip_special_tokens=True) == tokenizer.decode([0])
    assert DucklingTokenizer(make_mapping("most-frequent")).eos_token is None


def test_a_token_made_special_does_not_change_how_texts_are_encoded(tmp_path: Path) -> None:
    mapping = make_mapping("decompose", extra=(13, 986))  # "." and "..."
    expected = [DucklingTokenizer(mapping).encode(text) for text in TEXTS]
    for pad in (".", "Ġthe"):
        DucklingTokenizer(mapping, pad_token=pad).save_pretrained(tmp_path)
        loaded = DucklingTokenizer.from_pretrained(tmp_path)
        assert loaded.pad_token == pad
        assert [loaded.encode(text) for text in TEXTS] == expected


def test_tokens_beyond_the_vocabulary_can_be_added(tmp_path: Path) -> None:
    tokenizer = DucklingTokenizer(make_mapping("most-frequent"))
    assert tokenizer.add_special_tokens({"pad_token": "[PAD]"}) == 1
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, DucklingTokenizer.from_pretrained(tmp_path)):
        assert (each.pad_token_id, len(each), each.vocab_size) == (80, 81, 80)
        assert each.encode("[PAD].")[0] == 80
        assert each.decode([80]) == "[PAD]"


def test_a_saved_folder_opens_equal_and_saves_the_same_bytes(
    tokenizer: DucklingTokenizer, mapping: dict[str, Any], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    tokenizer.save_pretrained(first)
    loaded = DucklingTokenizer.from_pretrained(first)
    loaded.save_pretrained(second)
    assert (first / MAPPING_FILE).read_bytes() == mapping_bytes(mapping)
    files = {path.name: path.read_bytes() for path in first.iterdir()}
    assert files == {path.name: path.read_bytes() for path in second.iterdir()}
    assert str(tmp_path).encode() not in b"".join(files.values())
    assert [loaded.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert loaded.mapping == DucklingTokenizer.from_mapping(first / MAPPING_FILE).mapping == mapping


def test_copies_and_pickles_encode_the_same(tokenizer: DucklingTokenizer) -> None:
    expected = tokenizer.encode(STORIES[0])
    assert copy.deepcopy(tokenizer).encode(STORIES[0]) == expected
    assert pickle.loads(pickle.dumps(tokenizer)).encode(STORIES[0]) == expected


def test_both_encoders_give_the_same_ids(mapping: dict[str, Any]) -> None:
    one, other = DucklingTokenizer(mapping), DucklingTokenizer(mapping, encoder="tokenizers")
    assert one(TEXTS)["input_ids"] == other(TEXTS)["input_ids"]


def test_importing_the_tokenizer_does_not_load_torch() -> None:
    code = "import sys, duckling_data.tokens.tokenizer; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_or_bad_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r": cannot be read \(No such file .*; `duckling-data build-vocab` makes it"):
        DucklingTokenizer.from_mapping(tmp_path / MAPPING_FILE)
    with pytest.raises(InputError, match=f"no {MAPPING_FILE}"):
        DucklingTokenizer.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="the mapping: unk_id is -1"):
        DucklingTokenizer(make_mapping("reserved") | {"unk_id": -1})


def test_gpt2s_decoder_and_ours_agree_on_broken_utf8() -> None:
    base = GPT2TokenizerFast(vocab=gpt2_vocabulary(), merges=gpt2_merges())
    bytes_alone = DucklingTokenizer(make_mapping("decompose"))
    gpt2_of = {compact: int(gpt2) for gpt2, compact in bytes_alone.mapping["gpt2_to_compact"].items()}
    rng = np.random.default_rng(0)
    for _ in range(500):
        ids = rng.integers(0, bytes_alone.mapping["live_tokens"], 6).tolist()
        assert bytes_alone.decode(ids) == base.decode([gpt2_of[i] for i in ids])


def test_its_hash_for_datasets_is_the_same_after_use(mapping: dict[str, Any]) -> None:
    """`datasets.map` hashes it to find what it made before: one that is used stays the same."""
    from datasets.fingerprint import Hasher

    tokenizer = DucklingTokenizer(mapping)
    fresh = Hasher.hash(tokenizer)
    ids = tokenizer.encode("One day, a dog.")
    tokenizer([tokenizer.decode(ids), "The dog."], truncation=True, max_length=3)
    tokenizer.convert_ids_to_tokens(ids)
    assert Hasher.hash(tokenizer) == fresh == Hasher.hash(DucklingTokenizer(mapping))
    assert copy.deepcopy(tokenizer).encode("One day, a dog.") == ids
