"""The unused ids that a model's tokenizer shows: of real small tokenizers, made to have some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from duckling_train.dynamics.indicators import NAMES
from duckling_train.embedding.figures import inspect
from duckling_train.embedding.tokens import NEVER_MERGED, UNREACHABLE, WITHOUT, Vocabulary, open_vocabulary
from tests.support.train import sentences

NO_UTF_8 = {bytes([byte]) for byte in range(256) if byte in (0xC0, 0xC1) or byte > 0xF4}


def byte_level(size: int = 400) -> Tokenizer:
    """A byte-level BPE tokenizer as GPT-2's, trained on a few stories."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.train_from_iterator(sentences(40), trainer)
    return tokenizer


def metaspace() -> Tokenizer:
    """A BPE tokenizer of the kind of Llama 2's: a blank is put before a text, and bytes are tokens `<0x00>`."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False, max_token_length=8)
    tokenizer.train_from_iterator(sentences(40), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:1]  # the bytes are no special tokens
    return Tokenizer.from_str(json.dumps(content))


def changed(tokenizer: Tokenizer, *more: str, merges: list[list[str]] | None = None) -> tuple[Tokenizer, list[int]]:
    """Add tokens to the model's vocabulary, and merges. Returns the tokenizer, and the ids of the tokens."""
    content = json.loads(tokenizer.to_str())
    first = tokenizer.get_vocab_size()
    content["model"]["vocab"] |= {token: first + number for number, token in enumerate(more)}
    content["model"]["merges"] += merges or []
    return Tokenizer.from_str(json.dumps(content)), [*range(first, first + len(more))]


def opened(folder: Path, tokenizer: Tokenizer, rows: int) -> Vocabulary:
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    found = open_vocabulary(folder, rows)
    assert found is not None
    return found


def test_a_whole_byte_level_vocabulary_has_the_bytes_that_are_no_utf_8_alone(tmp_path: Path) -> None:
    tokenizer = byte_level()
    found = opened(tmp_path, tokenizer, 400)
    names = {token: text for text, token in tokenizer.get_vocab().items()}
    assert {names[token].encode("latin-1") for token in found.proposed[UNREACHABLE]} == NO_UTF_8
    assert (found.proposed[WITHOUT], found.proposed[NEVER_MERGED]) == ([], [])


def test_each_kind_of_unused_id_is_proposed(tmp_path: Path) -> None:
    joined = [["a", "Ġ"], ["aĠ", "b"]]  # a blank is never behind a letter in what is merged
    tokenizer, (never, split, part) = changed(byte_level(), "Ġqqzz", "aĠb", "aĠ", merges=joined)
    found = opened(tmp_path, tokenizer, 410)
    assert found.proposed[WITHOUT] == [*range(403, 410)]
    assert found.proposed[NEVER_MERGED] == [never]
    assert {never, split, part} <= {*found.proposed[UNREACHABLE]}
    assert len(found.proposed[UNREACHABLE]) == 3 + len(NO_UTF_8)
    assert [found.text(token) for token in (never, split, 405, 0)] == [" qqzz", "a b", None, "<|endoftext|>"]


def test_added_tokens_and_marks_are_not_proposed(tmp_path: Path) -> None:
    tokenizer, (mark, word) = changed(byte_level(), "<|reserved|>", "qqzz")
    tokenizer.add_special_tokens([AddedToken("<pad>", special=True)])
    tokenizer.add_tokens(["Zebra crossing"])
    found = opened(tmp_path, tokenizer, 404)
    assert (mark, word) == (400, 401)
    assert found.proposed[NEVER_MERGED] == [word]
    assert not {mark, 402, 403} & {*found.proposed[UNREACHABLE], *found.proposed[WITHOUT]}
    assert [found.text(token) for token in (402, 403)] == ["<pad>", "Zebra crossing"]


def test_a_tokenizer_that_puts_a_blank_before_a_text_has_no_tokens_that_only_seem_unreachable(tmp_path: Path) -> None:
    tokenizer, (never,) = changed(metaspace(), "qqzz")
    found = opened(tmp_path, tokenizer, tokenizer.get_vocab_size())
    names = {token: text for text, token in tokenizer.get_vocab().items()}
    assert found.proposed[NEVER_MERGED] == [never]
    unreachable = {names[token] for token in found.proposed[UNREACHABLE]}
    assert {f"<0x{byte.hex().upper()}>" for byte in NO_UTF_8} | {"qqzz"} == unreachable


def test_the_limit_of_a_text_and_dropout_change_nothing(tmp_path: Path) -> None:
    tokenizer = metaspace()
    plain = opened(tmp_path, tokenizer, 500).proposed
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(length=9)
    assert isinstance(tokenizer.model, models.BPE)
    tokenizer.model.dropout = 0.9
    assert opened(tmp_path, tokenizer, 500).proposed == plain


@pytest.mark.parametrize(
    "model", [models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"), models.WordLevel({"a": 0, "b": 1})]
)
def test_other_kinds_of_vocabulary_are_judged_as_far_as_they_can_be(tmp_path: Path, model: Any) -> None:
    found = opened(tmp_path, Tokenizer(model), 4)
    count = Tokenizer(model).get_vocab_size()
    assert found.proposed == {WITHOUT: [*range(count, 4)], UNREACHABLE: [], NEVER_MERGED: []}


def test_a_unigram_vocabulary_has_unreachable_tokens_and_no_merges(tmp_path: Path) -> None:
    pieces = [("▁", -2.0), ("▁a", -1.5), ("a", -1.0), ("b", -1.0), ("ab", -9.0), ("ba", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    found = opened(tmp_path, tokenizer, 6)
    assert found.proposed == {WITHOUT: [], UNREACHABLE: [4], NEVER_MERGED: []}  # a and b are likelier than ab


def test_a_vocabulary_and_merges_are_read_as_a_tokenizer_of_gpt_2s_kind(tmp_path: Path) -> None:
    tokenizer, (never,) = changed(byte_level(), "qqzz")
    tokenizer.model.save(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": 401}))
    found = open_vocabulary(tmp_path, 404)
    assert found is not None
    assert (found.file, found.proposed[WITHOUT], found.proposed[NEVER_MERGED]) == ("vocab.json", [402, 403], [never])
    assert [found.text(token) for token in (never, 401)] == ["qqzz", "<pad>"]
    (tmp_path / "merges.txt").unlink()
    assert open_vocabulary(tmp_path, 404) is None


def test_proposed_ids_are_what_is_compared_with_unless_others_are_given(tmp_path: Path) -> None:
    tokenizer, (never,) = changed(byte_level(), "qqzz")
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    save_file({"wte.weight": torch.randn(410, 8, generator=torch.manual_seed(0))}, tmp_path / "model.safetensors")
    found = inspect(tmp_path)
    assert (found.tokenizer, found.given) == ("tokenizer.json", False)
    assert found.unused == sorted({token for ids in found.proposed.values() for token in ids})
    assert {never, *range(401, 410)} <= {*found.unused}
    (matrix,) = found.matrices
    for name in NAMES:
        assert all(near.token is not None and near.id not in found.unused for near in matrix.indicators[name])
    other = inspect(tmp_path, unused=[range(3, 4)])
    assert (other.given, other.unused, other.proposed) == (True, [3], found.proposed)
    assert other.matrices[0].indicators != matrix.indicators
