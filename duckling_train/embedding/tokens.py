"""The tokens of a model's ids, and the ids that its tokenizer shows to be unused; no code of the tokenizer is run.

Proposed as unused are ids without a token, tokens that no text leads to, and tokens of a BPE vocabulary that no merge
makes. Of a Duckling model the dead ids are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from duckling_data.base.files import read_bytes
from duckling_data.base.records import read_record
from duckling_data.tokens.base import BASE_FILE
from duckling_data.tokens.encoders import one_line
from duckling_data.tokens.mapping import MAPPING_FILE, open_mapping
from duckling_train.embedding.tensors import inside

TOKENIZER, VOCABULARY, MERGES, ADDED = "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"
LIMIT = 128 << 20
"""The largest file of a tokenizer that is read, in bytes; those of large models have 10 to 40 million."""
ADVICE = "download it again, or remove it"
DEAD, WITHOUT, UNREACHABLE, NEVER_MERGED = "dead", "without a token", "unreachable", "never merged"
CONTEXTS = ("", "«", "a")
"""What a token is put behind: some tokenizers change the beginning of a text."""
BATCH = 8192
NO_UTF_8 = (0xC0, 0xC1, *range(0xF5, 0x100))
"""The bytes that no UTF-8 has; in a byte-level vocabulary `chr` of one stands for it."""
UNDECODABLE = "\ufffd"

Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


@dataclass(frozen=True)
class Vocabulary:
    """What a model's folder says of its tokens."""

    file: str
    """The name of the file that says it."""
    text: Callable[[int], str | None]
    """Returns the text of an id; None where it has none."""
    proposed: Mapping[str, list[int]] = field(default_factory=dict)
    """The unused ids by the reason, rising; a token may have several reasons."""


def open_vocabulary(folder: Path, rows: int) -> Vocabulary | None:
    """Return what `folder` says of the ids below `rows`, or None where it has no tokenizer that is read.

    Raises InputError for damaged files, and for a link that leads out of the folder.
    """
    if (path := inside(folder, MAPPING_FILE)).exists():
        inside(folder, BASE_FILE)
        return _of_mapping(path, rows)
    with one_line(f"{folder}: its tokenizer", ADVICE):
        if (path := inside(folder, TOKENIZER)).exists():
            tokenizer, added = Tokenizer.from_str(read_bytes(path, LIMIT).decode()), {}
        elif (path := inside(folder, VOCABULARY)).exists() and (merges := inside(folder, MERGES)).exists():
            tokenizer, added = _byte_level(path, merges), _added(inside(folder, ADDED))
        else:
            return None
        return _of_tokenizer(path.name, tokenizer, added, rows)


def _of_mapping(path: Path, rows: int) -> Vocabulary:
    mapping, base = open_mapping(path)
    live, total = mapping["live_token_ids"], min(mapping["total_vocab"], rows)

    def text(token: int) -> str | None:
        return base.token_bytes(live[token]).decode(errors="replace") if token < len(live) else None

    return Vocabulary(path.name, text, {DEAD: [*range(mapping["live_tokens"], total)]})


def _of_tokenizer(name: str, tokenizer: Tokenizer, added: Mapping[int, str], rows: int) -> Vocabulary:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, models.BPE):
        tokenizer.model.dropout = None  # it would draw at random how a text is split
    special = {token: entry.content for token, entry in tokenizer.get_added_tokens_decoder().items()} | {**added}
    tokens = {token: text for text, token in tokenizer.get_vocab(with_added_tokens=False).items()} | special
    ordinary = {
        token: text for token, text in sorted(tokens.items())
        if token < rows and token not in special and not _looks_special(text)
    }  # fmt: skip

    def text(token: int) -> str | None:
        decoded = tokenizer.decode([token], skip_special_tokens=False) if token in tokens else UNDECODABLE
        return tokens.get(token) if UNDECODABLE in decoded or not decoded else decoded

    content = json.loads(tokenizer.to_str())
    impossible = {chr(byte) for byte in NO_UTF_8 if "ByteLevel" in json.dumps(content["decoder"])}
    impossible |= {f"<0x{byte:02X}>" for byte in NO_UTF_8 if content["model"].get("byte_fallback")}
    no_text = {token for token, text in tokens.items() if text in impossible and token < rows}
    proposed = {
        WITHOUT: [token for token in range(rows) if token not in tokens],
        UNREACHABLE: sorted(no_text.union(_unreachable(tokenizer, [*ordinary]))),
        NEVER_MERGED: _never_merged(content["model"], ordinary),
    }
    return Vocabulary(name, text, proposed)


def _unreachable(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Return the ids whose text, alone and behind CONTEXTS, encodes to something else.

    A token that is no whole UTF-8 has no text of its own, and is left out. Vocabularies of whole words, or whose
    tokens depend on their place in a word (WordLevel, WordPiece), are not judged.
    """
    if not isinstance(tokenizer.model, models.BPE | models.Unigram):
        return []
    for context in CONTEXTS:
        try:
            before = tokenizer.encode(context, add_special_tokens=False).ids
        except Exception:  # the vocabulary knows neither its character nor an unknown token
            continue
        missed: list[int] = []
        for first in range(0, len(ids), BATCH):
            wanted = [[*before, token] for token in ids[first : first + BATCH]]
            texts = tokenizer.decode_batch(wanted, skip_special_tokens=False)
            found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            every = zip(wanted, texts, found, strict=True)
            missed += [ask[-1] for ask, text, got in every if got.ids != ask and UNDECODABLE not in text]
        ids = missed
    return ids


def _never_merged(model: Mapping[str, Any], tokens: Mapping[int, str]) -> list[int]:
    """Return the ids of a BPE model's tokens that no merge makes and that are no single character."""
    if model["type"] != "BPE" or model["ignore_merges"]:  # then a whole word is looked up without merges
        return []
    prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    made = {left + right.removeprefix(prefix) for left, right in model["merges"]}

    def single(token: str) -> bool:
        return len(token.removeprefix(prefix).removesuffix(suffix)) <= 1

    return [number for number, token in tokens.items() if token not in made and not single(token)]


def _looks_special(token: str) -> bool:
    """Return whether it is a mark such as `<pad>` or `[MASK]`, which a text need not lead to (Land & Bartolo 2024)."""
    return len(token) > 2 and token[0] in "[<" and token[-1] in "]>" and any(map(str.isalpha, token))


def _byte_level(vocabulary: Path, merges: Path) -> Tokenizer:
    """Return the tokenizer of the two files of GPT-2's kind."""
    lines = read_bytes(merges, LIMIT).decode().splitlines()
    split = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    pairs = [(left, right) for left, right in split]
    tokenizer = Tokenizer(models.BPE(read_record(vocabulary, dict[str, Id], ADVICE, LIMIT), pairs))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer


def _added(path: Path) -> dict[int, str]:
    found = read_record(path, dict[str, Id], ADVICE) if path.exists() else {}
    return {token: text for text, token in found.items()}
