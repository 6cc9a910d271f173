"""The readers of a workspace's kept tokens and of a base tokenizer's file, for the fuzzing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.tokens.kept import DamagedTokens, EncodedBatch
from duckling_data.tokens.store import KEPT, TokenStore


def kept() -> dict[str, bytes]:
    """Return the files of six stories' tokens."""
    with tempfile.TemporaryDirectory() as folder:
        with TokenStore(Path(folder), "train", {"source": "s"}, 100, print).keeping() as keep:
            for first in (0, 3):
                tokens, lengths = np.arange(6, dtype=np.uint16), np.array([2, 0, 4])
                batch = EncodedBatch(first + np.arange(3), tokens, lengths, 3, 1)
                keep.append(batch, batch.to_bytes())
        return {f"{KEPT}/train/{path.name}": path.read_bytes() for path in (Path(folder) / KEPT / "train").iterdir()}


def read_kept(folder: Path, _name: str) -> None:
    """Read them all."""
    try:
        found = TokenStore(folder, "train", {"source": "s"}, 100, print).find(6)
        for index in range(len(found or ())):
            assert found is not None
            found.read(index)
    except DamagedTokens as damage:  # which a command tells in such a line
        raise InputError(f"{damage}: not as it was written") from damage


def tokenizer() -> dict[str, bytes]:
    """Return a small tokenizer of bytes and three merged tokens."""
    from duckling_data.tokens.base import BYTE_OF

    vocabulary = {text: token for token, text in enumerate([*BYTE_OF, "th", "the", "cat"])}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content = {
        "added_tokens": [{"id": 259, "content": "<|endoftext|>", "special": True, **flags}], "pre_tokenizer": level,
        "model": {"type": "BPE", "ignore_merges": True, "vocab": vocabulary, "merges": ["t h", "th e"]},
    }  # fmt: skip
    return {"t.json": json.dumps(content, ensure_ascii=False).encode()}


def read_tokenizer(folder: Path, name: str) -> None:
    """Read it, encode with it, and split every token."""
    from duckling_data.tokens.encoders import load_encoder
    from duckling_data.tokens.tokenizer_file import read_base

    base = read_base(folder / name)
    _ = load_encoder(None, base).encode("the cat"), [base.split(token, ()) for token in base.vocabulary.values()]
