"""A base tokenizer: byte-level BPE, whose tokens a compact vocabulary is chosen from.

Everything that depends on the base is asked of such an object, which is passed on: `GPT2` (gpt2.py), or one that
`tokenizer_file` read from a `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from duckling_data.rows.layout import row_dtype

BASE_FILE = "base_tokenizer.json"
"""A base's `tokenizer.json` in a workspace and beside a saved tokenizer, unless the base is GPT-2. It is not called
`tokenizer.json` there: transformers would take that for the saved tokenizer itself."""
PRINTABLE_BYTES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""The bytes whose Latin-1 character stands for them in a token's string; the others follow from U+0100 on."""
BYTE_OF = {chr(byte): byte for byte in PRINTABLE_BYTES} | {
    chr(0x100 + number): byte for number, byte in enumerate(sorted({*range(256)} - {*PRINTABLE_BYTES}))
}
"""The byte that each of the 256 characters of token strings stands for: GPT-2's `bytes_to_unicode` inverted."""


@dataclass(frozen=True, eq=False)
class BaseTokenizer:
    """A byte-level BPE tokenizer. What it holds is loaded when first asked for, and shared: read it, do not change it.

    Loading raises InputError where the tokenizer's files are missing or damaged.
    """

    vocab_size: int
    """All ids are below it; not each of them need have a token."""
    eos_id: int | None
    """The token that ends a text, such as `<|endoftext|>`; None where the tokenizer has none."""
    eos_text: str | None
    load_vocabulary: Callable[[], dict[str, int]]
    """Returns every token's string, in the byte alphabet, with its id."""
    load_merges: Callable[[], list[tuple[str, str]]]
    """Returns the merges in rank order."""
    added: Mapping[int, str]
    """The text of each token that is found in a text as it is, before anything is merged: `<|endoftext|>`."""
    load_json: Callable[[], str]
    """Returns the `tokenizer.json` that the encoders are built from."""
    again: Callable[[], BaseTokenizer]
    """Returns this tokenizer; a copy in another process is made by it."""
    content: bytes | None = None
    """The file that it was read from; None for GPT-2, which is installed."""
    sha256: str | None = None
    """The file's SHA-256."""
    only_tokenizers: str | None = None
    """Why only the library tokenizers encodes exactly, by the form of the file; None where gigatoken may."""
    keeps_bytes: bool = True
    """Whether a text's tokens stand for exactly its bytes: nothing is normalized, and no space put before it."""

    def __reduce__(self) -> tuple[Callable[[], BaseTokenizer], tuple[()]]:
        return self.again, ()

    @cached_property
    def id_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The dtype of its ids in memory and in files: uint16 or uint32."""
        return row_dtype(self.vocab_size)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token's string, in the byte alphabet, with its id."""
        return self.load_vocabulary()

    @cached_property
    def strings(self) -> dict[int, str]:
        """Every id with its token's string: `vocabulary` inverted."""
        return {token_id: string for string, token_id in self.vocabulary.items()}

    @cached_property
    def parts(self) -> dict[int, tuple[int, ...]]:
        """The ids that each merged token is made of: the two of the first merge that makes it.

        Single bytes and added tokens have none. A token that no merge makes, and that is found whole all the same
        (`ignore_merges`), has its single bytes.
        """
        ids, parts = self.vocabulary, dict[int, tuple[int, ...]]()
        for left, right in self.load_merges():
            parts.setdefault(ids[left + right], (ids[left], ids[right]))
        for string, token in ids.items():
            if token in self.added:
                parts.pop(token, None)
            elif len(string) > 1 and token not in parts:
                parts[token] = tuple(ids[character] for character in string)
        return parts

    def split(self, token_id: int, live: Container[int]) -> list[int]:
        """Return the ids, in text order, that a token splits into when merges are undone until all pieces are `live`.

        A piece without parts (a single byte, an added token) is returned as it is: the caller gives it `unk_id`.
        """
        parts = self.parts
        pieces: list[int] = []
        waiting = [token_id]
        while waiting:  # ends: every part is shorter than what it is a part of
            piece = waiting.pop()
            if piece in live or piece not in parts:
                pieces.append(piece)
            else:
                waiting += reversed(parts[piece])
        return pieces

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of text that a token stands for; not always whole UTF-8 characters."""
        if (text := self.added.get(token_id)) is not None:
            return text.encode()
        return bytes(map(BYTE_OF.__getitem__, self.strings[token_id]))

    @cached_property
    def tokenizer_json(self) -> str:
        """The `tokenizer.json` that the encoders are built from."""
        return self.load_json()
