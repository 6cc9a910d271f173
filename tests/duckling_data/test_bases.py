"""Any byte-level BPE as the base: encoders give the library's ids, and tokens split and spell what they stand for."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.tokens.base import BYTE_OF, BaseTokenizer
from duckling_data.tokens.encoders import Encoder, load_encoder, not_exact
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.tokenizer_file import parse_base
from tests.support import reference_pipeline as reference
from tests.support.bases import BASES, SPECIAL, added, changed, llama_3_like, small

PIECES = [
    "the cat",
    " sat",
    ".",
    "\n",
    " \n \r\n",
    "\t",
    " 🦆",
    "'s",
    "'S",
    "12345",
    "e\u0301",
    "\u088f",
    "\x85",
    "жизнь",
    "ſ",
]
PIECES += ["</s>", "<pad>", "<|endoftext|>", *SPECIAL[:3], "<|end_of", " a a a", "The little girl", "\u3000", "\x00"]
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
texts = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@pytest.fixture(scope="module", params=BASES)
def content(request: pytest.FixtureRequest) -> bytes:
    return BASES[request.param]()


@pytest.fixture(scope="module")
def base(content: bytes) -> BaseTokenizer:
    return parse_base(content)


@pytest.fixture(scope="module")
def library(content: bytes) -> Any:
    return reference.load_base(content)


@pytest.fixture(scope="module")
def encoders(base: BaseTokenizer) -> list[Encoder]:
    return [load_encoder(kind, base) for kind in (None, "tokenizers")]


@settings(max_examples=100, deadline=None)
@given(stories=st.lists(texts, min_size=1, max_size=6))
def test_the_encoders_give_the_librarys_ids(
    base: BaseTokenizer, encoders: list[Encoder], library: Any, stories: list[str]
) -> None:
    expected = reference.encode(library, stories)
    for encoder in encoders:
        batch = encoder.encode_batch(pa.array(stories, pa.large_string()))
        assert batch.tokens.dtype == base.id_dtype
        assert [story.tolist() for story in batch.stories()] == expected
        assert [encoder.encode(story) for story in stories] == expected


def test_gigatoken_encodes_where_it_is_exact() -> None:
    reasons = {name: not_exact(parse_base(content())) for name, content in BASES.items()}
    assert reasons.pop("normalizing") == "its normalizer NFC"
    assert reasons == dict.fromkeys(reasons)
    with pytest.raises(InputError, match=r"--encoder gigatoken: not exact for this tokenizer: its normalizer NFC"):
        load_encoder("gigatoken", parse_base(BASES["normalizing"]()))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"added_tokens": [added(700, "the cat") | {"special": False}]}, "added tokens that are not special"),
        ({"added_tokens": [added(700, "<x>") | {"lstrip": True}]}, "take spaces"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, LEVEL]}},
            "pre-tokenizers that gigatoken is not proven for",
        ),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Isolated", "invert": False},
                {**LEVEL, "use_regex": False}]}},
            "pre-tokenizers that gigatoken is not proven for",
        ),
        ({"pre_tokenizer": {**LEVEL, "use_regex": False}}, "not proven"),
    ],
)  # fmt: skip
def test_other_forms_are_left_to_the_librarys_encoder(parts: dict[str, Any], reason: str) -> None:
    content = changed(small(), **parts)
    base = parse_base(content)
    assert reason in str(not_exact(base))
    stories = ["the cat <x> 2024's cats", " the  cat"]
    encoder = load_encoder(None, base)
    assert [encoder.encode(story) for story in stories] == reference.encode(reference.load_base(content), stories)


def test_a_token_spells_its_text_and_splits_into_shorter_tokens(base: BaseTokenizer) -> None:
    singles = {base.vocabulary[character] for character in BYTE_OF}
    for text, token in base.vocabulary.items():
        if token in base.added:
            assert base.split(token, ()) == [token]
            assert base.token_bytes(token) == text.encode()
            continue
        assert base.token_bytes(token) == bytes(BYTE_OF[character] for character in text)
        pieces = base.split(token, ())
        assert set(pieces) <= singles
        assert b"".join(map(base.token_bytes, pieces)) == base.token_bytes(token)
        parts = base.parts.get(token)
        assert (parts is None) == (len(text) == 1)
        assert parts is None or "".join(base.strings[part] for part in parts) == text


def test_a_word_that_no_merge_makes_has_its_bytes_as_parts() -> None:
    base = parse_base(llama_3_like())
    merges = {left + right for left, right in base.load_merges()}
    unmade = [text for text, token in base.vocabulary.items() if len(text) > 1 and text not in merges | {*SPECIAL}]
    assert unmade
    assert all(len(base.parts[base.vocabulary[text]]) == len(text) for text in unmade)


def test_the_token_that_ends_a_text_is_the_special_one_of_a_known_name() -> None:
    ends = {name: (parse_base(content()).eos_id, parse_base(content()).eos_text) for name, content in BASES.items()}
    assert ends.pop("small") == (None, None)
    assert ends.pop("sparse") == (7, "</s>")
    assert {text for _, text in ends.values()} == {"<|end_of_text|>", "<|endoftext|>"}
    assert GPT2.eos_text == "<|endoftext|>"


def test_a_base_is_itself_in_a_copy_and_in_another_process(base: BaseTokenizer) -> None:
    for each in (base, GPT2):
        assert pickle.loads(pickle.dumps(each)) is copy.deepcopy(each) is each


def test_truncation_and_what_frames_a_text_are_left_out() -> None:
    plain = json.loads(small()) | {"truncation": None}
    whole = parse_base(json.dumps(plain).encode())
    story = "Once upon a time there was a little girl. " * 5
    assert load_encoder(None, parse_base(small())).encode(story) == load_encoder(None, whole).encode(story)


def test_gpt2_as_a_file_gives_gpt2s_tokens() -> None:
    base = parse_base(GPT2.tokenizer_json.encode())
    assert (base.vocab_size, base.eos_id, base.parts) == (GPT2.vocab_size, GPT2.eos_id, GPT2.parts)
    assert base.only_tokenizers is None


def test_a_split_by_marks_is_left_to_the_librarys_encoder_which_knows_fewer_of_them() -> None:
    mark, level = "\u1acf", {**LEVEL, "use_regex": False}
    split = {
        "type": "Split",
        "pattern": {"Regex": r"[\p{L}\p{M}]+|[^\p{L}\p{M}]+"},
        "behavior": "Isolated",
        "invert": False,
    }
    content = changed(small(), pre_tokenizer={"type": "Sequence", "pretokenizers": [split, level]})
    assert "not proven" in str(not_exact(parse_base(content)))
    encoder, story = load_encoder(None, parse_base(content)), f"the{mark}the the"
    assert encoder.encode(story) == reference.encode(reference.load_base(content), [story])[0]
